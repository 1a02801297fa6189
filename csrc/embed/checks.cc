#include "embed/checks.h"

#include <sched.h>
#include <strings.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/clock.h"
#include "embed/error.h"
#include "server/front_end.h"

namespace msserving::embed {
namespace {

constexpr int64_t kMaxPort = 65535;

// As "{:g}" does in Python.
std::string Short(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

bool IsDigits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

[[noreturn]] void ThrowRange(const char* name, const std::string& minimum, const std::string& maximum,
                             const std::string& value) {
  ThrowInvalid("Parameter '" + std::string(name) + "' should be in range [" + minimum + ", " + maximum + "], but " +
               value + " was given");
}

void CheckIpAddress(const std::string& address) {
  const std::string head = "The address '" + address + "' is illegal: ";
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) {
    ThrowInvalid(head + "ip and port should be separated by ':', as in ip:port");
  }
  if (colon == 0) {
    ThrowInvalid(head + "the ip is missing before ':'");
  }
  const std::string port = address.substr(colon + 1);
  if (port.empty()) {
    ThrowInvalid(head + "the port is missing after ':'");
  }
  if (!IsDigits(port)) {
    ThrowInvalid(head + "the port '" + port + "' is not a number");
  }
  int64_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || number < 1 || number > kMaxPort) {
    // As a number is written: without zeros in front.
    const size_t first = std::min(port.find_first_not_of('0'), port.size() - 1);
    ThrowInvalid(head + "port " + port.substr(first) + " is out of legal range [1 ~ " + std::to_string(kMaxPort) + "]");
  }
}

void CheckUnixAddress(const std::string& address, const std::string& path) {
  if (path.empty()) {
    ThrowInvalid("The address '" + address + "' is illegal: the path after 'unix:' is empty");
  }
  std::error_code ignored;
  const std::filesystem::path directory = std::filesystem::absolute(path, ignored).parent_path();
  if (!std::filesystem::is_directory(directory, ignored)) {
    ThrowInvalid("The address '" + address + "' is illegal: the directory '" + directory.string() + "' does not exist");
  }
}

}  // namespace

std::string CheckText(const char* name, const char* value) {
  if (value == nullptr) {
    ThrowInvalid("Parameter '" + std::string(name) + "' should be str, but NULL was given");
  }
  if (*value == '\0') {
    ThrowInvalid("Parameter '" + std::string(name) + "' should not be empty str");
  }
  return value;
}

int64_t CheckAtLeast(const char* name, int64_t value, int64_t minimum) {
  if (value < minimum) {
    ThrowInvalid("Parameter '" + std::string(name) + "' should be >= " + std::to_string(minimum) + ", but " +
                 std::to_string(value) + " was given");
  }
  return value;
}

int64_t CheckRange(const char* name, int64_t value, int64_t minimum, int64_t maximum) {
  if (value < minimum || value > maximum) {
    ThrowRange(name, std::to_string(minimum), std::to_string(maximum), std::to_string(value));
  }
  return value;
}

double CheckRange(const char* name, double value, double minimum, double maximum) {
  if (!(value >= minimum && value <= maximum)) {  // also for NaN
    ThrowRange(name, Short(minimum), Short(maximum), PythonNumber(value));
  }
  return value;
}

int64_t CheckSeconds(const char* name, double value, double minimum, double maximum) {
  return static_cast<int64_t>(CheckRange(name, value, minimum, maximum) * static_cast<double>(kNanosPerSecond));
}

std::string CheckServableName(const char* value) {
  std::string name = CheckText("servable_name", value);
  if (name == "." || name == ".." || name.find('/') != std::string::npos) {
    ThrowInvalid("Parameter 'servable_name' should be the name of a directory in servable_directory, but " +
                 PythonText(name) + " was given");
  }
  return name;
}

std::string CheckDeviceType(const char* value) {
  if (value == nullptr) {
    return {};
  }
  const std::string text = CheckText("device_type", value);
  if (strcasecmp(text.c_str(), "none") == 0) {
    return {};
  }
  for (const char* known : {"Ascend", "GPU", "CPU"}) {
    if (strcasecmp(text.c_str(), known) == 0) {
      return known;
    }
  }
  ThrowInvalid("Parameter 'device_type' should be 'Ascend', 'GPU', 'CPU' or None, but '" + text + "' was given");
}

std::string CheckDecMode(const char* value) {
  std::string mode = CheckText("dec_mode", value);
  if (mode != "AES-GCM" && mode != "AES-CBC") {
    ThrowInvalid("Parameter 'dec_mode' should be one of 'AES-GCM', 'AES-CBC', but '" + mode + "' was given");
  }
  return mode;
}

std::vector<int64_t> CheckDevices(const int64_t* values, size_t count) {
  std::vector<int64_t> devices;
  for (size_t i = 0; i < count; ++i) {
    const std::string name = count > 1 ? "device_ids[" + std::to_string(i) + "]" : "device_ids";
    devices.push_back(CheckAtLeast(name.c_str(), values[i], 0));
  }
  for (size_t i = 0; i < count; ++i) {
    if (std::find(devices.begin(), devices.begin() + static_cast<std::ptrdiff_t>(i), devices[i]) !=
        devices.begin() + static_cast<std::ptrdiff_t>(i)) {
      ThrowInvalid("Parameter 'device_ids' should have no repeated values, but " + std::to_string(devices[i]) +
                   " is there repeatedly");
    }
  }
  return devices;
}

void CheckAddress(const std::string& address, bool takes_unix) {
  constexpr std::string_view kUnix = "unix:";
  if (address.rfind(kUnix, 0) != 0) {
    CheckIpAddress(address);
  } else if (takes_unix) {
    CheckUnixAddress(address, address.substr(kUnix.size()));
  } else {
    ThrowInvalid("The address '" + address + "' is illegal: the RESTful server takes ip:port only, no unix socket");
  }
}

std::string PythonText(std::string_view text) {
  const char quote = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string shown(1, quote);
  for (const char c : text) {
    if (c == quote || c == '\\') {
      shown.append(1, '\\').append(1, c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      shown.append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
    } else if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      shown.append(escaped);
    } else {
      shown.push_back(c);
    }
  }
  return shown + quote;
}

std::string PythonNumber(double value) {
  if (!std::isfinite(value)) {
    return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  }
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  char text[64];
  const auto result =
      std::to_chars(text, text + sizeof(text), value, plain ? std::chars_format::fixed : std::chars_format::scientific);
  std::string shown(text, result.ptr);
  if (plain && shown.find('.') == std::string::npos) {
    shown += ".0";
  }
  return shown;
}

int64_t IoThreadsFromEnvironment() {
  const char* text = std::getenv("MSSERVING_IO_THREADS");
  if (text == nullptr) {
    cpu_set_t processors;
    const int count = sched_getaffinity(0, sizeof(processors), &processors) == 0 ? CPU_COUNT(&processors) : 1;
    return std::clamp<int64_t>(count / 2, 1, 4);
  }
  int64_t threads = 0;
  const std::string_view whole = text;
  const auto [end, error] = std::from_chars(whole.data(), whole.data() + whole.size(), threads);
  if (!IsDigits(whole) || error != std::errc() || threads < 1 || threads > kMaxIoThreads) {
    ThrowInvalid("Environment variable MSSERVING_IO_THREADS should be a number from 1 to " +
                 std::to_string(kMaxIoThreads) + ", but is '" + std::string(whole) + "'");
  }
  return threads;
}

double WorkerSilenceFromEnvironment() {
  const char* set = std::getenv("MSSERVING_WORKER_SILENCE_SECONDS");
  const std::string text = set == nullptr ? "30" : set;
  if (!IsDigits(text) || text.size() > 9) {
    ThrowInvalid(
        "Environment variable MSSERVING_WORKER_SILENCE_SECONDS should be a whole number of seconds, 0 meaning never, "
        "but is '" +
        text + "'");
  }
  return std::stod(text);
}

int64_t SpinNsFromEnvironment() {
  const char* set = std::getenv("MSSERVING_SPIN_MICROSECONDS");
  const std::string text = set == nullptr ? "100" : set;
  if (!IsDigits(text) || text.size() > 9 || std::stol(text) > 1000) {
    ThrowInvalid(
        "Environment variable MSSERVING_SPIN_MICROSECONDS should be a whole number of microseconds from 0 to 1000, 0 "
        "meaning never, but is '" +
        text + "'");
  }
  return std::stol(text) * 1000;
}

}  // namespace msserving::embed
