#include "session/libraries/test_double/options.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "session/libraries/test_double/elementwise.h"

namespace msserving::test_double {
namespace {

[[noreturn]] void Refuse(std::string_view key, std::string_view value, std::string_view why) {
  throw std::invalid_argument("test double: option '" + std::string(key) + "' = '" + std::string(value) +
                              "': " + std::string(why));
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

int64_t ParseInt(std::string_view key, std::string_view text, int64_t least) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) Refuse(key, text, "not an integer");
  if (value < least) Refuse(key, text, "must be at least " + std::to_string(least));
  return value;
}

double ParseDouble(std::string_view key, std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double value = std::strtod(copy.c_str(), &end);
  if (copy.empty() || *end != '\0') Refuse(key, text, "not a number");
  return value;
}

// One of "float32[32,2,2]".
MsServingTensorInfo ParseTensor(std::string_view key, std::string_view text) {
  const size_t bracket = text.find('[');
  if (bracket == std::string_view::npos || text.back() != ']') Refuse(key, text, "expected e.g. float32[32,2,2]");
  MsServingTensorInfo info{};
  info.dtype = DTypeFromName(text.substr(0, bracket));
  if (info.dtype == 0) Refuse(key, text, "unknown element type");
  for (std::string_view dim : Split(text.substr(bracket + 1, text.size() - bracket - 2), ',')) {
    if (info.rank == MS_SERVING_SESSION_MAX_RANK) Refuse(key, text, "too many dimensions");
    info.dims[info.rank++] = ParseInt(key, dim, -1);
  }
  return info;
}

Op ParseOp(std::string_view key, std::string_view text) {
  if (text == "add") return Op::kAdd;
  if (text == "identity") return Op::kIdentity;
  if (text == "negate") return Op::kNegate;
  if (text == "fail") return Op::kFail;
  Refuse(key, text, "must be add, identity, negate or fail");
}

void ParseOne(std::string_view key, std::string_view value, Options* options) {
  if (key == "op") {
    options->op = ParseOp(key, value);
  } else if (key == "inputs") {
    for (std::string_view part : Split(value, ';')) options->inputs.push_back(ParseTensor(key, part));
  } else if (key == "batch_sizes") {
    for (std::string_view part : Split(value, ',')) options->batch_sizes.push_back(ParseInt(key, part, 1));
  } else if (key == "without_batch_dim_inputs") {
    for (std::string_view part : Split(value, ',')) {
      options->without_batch_dim_inputs.push_back(static_cast<size_t>(ParseInt(key, part, 0)));
    }
  } else if (key == "run_us") {
    options->run_us = ParseInt(key, value, 0);
  } else if (key == "started_fd") {
    options->started_fd = static_cast<int>(ParseInt(key, value, 0));
  } else if (key == "gate_fd") {
    options->gate_fd = static_cast<int>(ParseInt(key, value, 0));
  } else if (key == "run_mode") {
    if (value != "spin" && value != "sleep") Refuse(key, value, "must be spin or sleep");
    options->spin = value == "spin";
  } else if (key == "fail_if_first_element") {
    options->fail_if_first_element = ParseDouble(key, value);
  } else if (key == "crash_if_first_element") {
    options->crash_if_first_element = ParseDouble(key, value);
  } else {
    Refuse(key, value, "unknown option");
  }
}

void CheckTogether(const Options& options) {
  if (options.inputs.empty()) throw std::invalid_argument("test double: option 'inputs' is missing");
  for (size_t index : options.without_batch_dim_inputs) {
    if (index >= options.inputs.size()) {
      Refuse("without_batch_dim_inputs", std::to_string(index), "there is no such input");
    }
  }
  if (!std::is_sorted(options.batch_sizes.begin(), options.batch_sizes.end(), std::less_equal<>())) {
    Refuse("batch_sizes", "...", "must ascend");
  }
  for (size_t i = 0; i < options.inputs.size(); ++i) {
    if (!options.batch_sizes.empty() && options.HasBatchDim(i) && options.inputs[i].rank == 0) {
      Refuse("inputs", std::to_string(i), "a scalar has no batch dimension");
    }
    if (options.op == Op::kAdd && options.inputs[i].dtype != options.inputs[0].dtype) {
      Refuse("inputs", std::to_string(i), "add needs inputs of one element type");
    }
  }
  if (options.op == Op::kAdd && !options.HasBatchDim(0)) {
    Refuse("without_batch_dim_inputs", "0", "the first input gives the sum its shape");
  }
}

}  // namespace

bool Options::HasBatchDim(size_t input) const {
  return std::find(without_batch_dim_inputs.begin(), without_batch_dim_inputs.end(), input) ==
         without_batch_dim_inputs.end();
}

Options ParseOptions(const MsServingOption* options, size_t count) {
  Options parsed;
  for (size_t i = 0; i < count; ++i) ParseOne(options[i].key, options[i].value, &parsed);
  CheckTogether(parsed);
  return parsed;
}

}  // namespace msserving::test_double
