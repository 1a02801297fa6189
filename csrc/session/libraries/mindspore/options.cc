#include "session/libraries/mindspore/options.h"

#include <algorithm>
#include <stdexcept>

namespace msserving::mindspore_session {
namespace {

[[noreturn]] void Refuse(const std::string& key, const std::string& value, const std::string& why) {
  throw std::invalid_argument("mindspore session: option '" + key + "' = '" + value + "': " + why);
}

int64_t ParseInt(const std::string& key, const std::string& text, int64_t most) {
  if (text.empty() || text.size() > 18 || text.find_first_not_of("0123456789") != std::string::npos) {
    Refuse(key, text, "not a number");
  }
  const int64_t value = std::stoll(text);
  if (value > most) Refuse(key, text, "at most " + std::to_string(most));
  return value;
}

std::vector<PhaseOption> ParsePhases(const std::string& key, const std::string& value) {
  std::vector<PhaseOption> phases;
  for (size_t start = 0; start < value.size();) {
    const size_t end = std::min(value.find(';', start), value.size());
    const std::string part = value.substr(start, end - start);
    const size_t colon = part.find(':');
    if (colon == std::string::npos || colon + 1 == part.size()) Refuse(key, part, "expected <batch size>:<phase>");
    PhaseOption phase{ParseInt(key, part.substr(0, colon), INT32_MAX), part.substr(colon + 1)};
    if (!phases.empty() && phases.back().batch_size >= phase.batch_size) Refuse(key, value, "batch sizes must ascend");
    phases.push_back(std::move(phase));
    start = end + 1;
  }
  if (phases.empty()) Refuse(key, value, "no phase");
  if (phases.size() > 1 && phases[0].batch_size == 0) Refuse(key, value, "batch size 0 must stand alone");
  return phases;
}

Way ParseWay(const std::string& key, const std::string& value) {
  if (value == "auto") return Way::kAuto;
  if (value == "replay") return Way::kReplay;
  if (value == "run") return Way::kRun;
  Refuse(key, value, "must be auto, replay or run");
}

Fuse ParseFuse(const std::string& key, const std::string& value) {
  Fuse fuse;
  fuse.all = value == "all";
  if (fuse.all || value == "none") return fuse;
  for (size_t start = 0; start <= value.size();) {
    const size_t end = std::min(value.find(';', start), value.size());
    fuse.batch_sizes.push_back(ParseInt(key, value.substr(start, end - start), INT32_MAX));
    start = end + 1;
  }
  return fuse;
}

Winograd ParseWinograd(const std::string& key, const std::string& value) {
  if (value == "measured") return Winograd::kMeasured;
  if (value == "never") return Winograd::kNever;
  if (value == "2") return Winograd::kTilesOf2;
  if (value == "4") return Winograd::kTilesOf4;
  Refuse(key, value, "must be measured, never, 2 or 4");
}

}  // namespace

bool Fuse::Includes(int64_t batch_size) const {
  return all || std::find(batch_sizes.begin(), batch_sizes.end(), batch_size) != batch_sizes.end();
}

Options ParseOptions(const MsServingOption* options, size_t count) {
  Options parsed;
  for (size_t i = 0; i < count; ++i) {
    const std::string key = options[i].key;
    const std::string value = options[i].value;
    if (key == "phases") {
      parsed.phases = ParsePhases(key, value);
    } else if (key == "way") {
      parsed.way = ParseWay(key, value);
    } else if (key == "kernel_threads") {
      parsed.kernel_threads = static_cast<int>(ParseInt(key, value, 1024));
    } else if (key == "fuse") {
      parsed.fuse = ParseFuse(key, value);
    } else if (key == "winograd") {
      parsed.winograd = ParseWinograd(key, value);
    } else if (key == "leave_when_spoilt") {
      parsed.leave_when_spoilt = ParseInt(key, value, 1) == 1;
    } else if (key == "mindspore_version") {
      parsed.mindspore_version = value;
    } else {
      Refuse(key, value, "unknown option");
    }
  }
  if (parsed.phases.empty()) throw std::invalid_argument("mindspore session: option 'phases' is missing");
  return parsed;
}

}  // namespace msserving::mindspore_session
