// Checks of what hosts pass in. A refusal is an EmbedError with the parameter, the value and what is legal, in the
// words of the Python package (python/mindspore_serving/server/_checks.py); tests/python/test_embedding_words.py
// compares them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace msserving::embed {

// `value` if it is neither null nor empty.
std::string CheckText(const char* name, const char* value);
int64_t CheckAtLeast(const char* name, int64_t value, int64_t minimum);
int64_t CheckRange(const char* name, int64_t value, int64_t minimum, int64_t maximum);
double CheckRange(const char* name, double value, double minimum, double maximum);
int64_t CheckSeconds(const char* name, double value, double minimum, double maximum);  // in nanoseconds
std::string CheckServableName(const char* value);
// "" for null and "None"; otherwise the known type's own spelling.
std::string CheckDeviceType(const char* value);
std::string CheckDecMode(const char* value);
std::vector<int64_t> CheckDevices(const int64_t* values, size_t count);
// ip:port, or with `takes_unix` unix:path.
void CheckAddress(const std::string& address, bool takes_unix);

// As Python shows a str and a float.
std::string PythonText(std::string_view text);
std::string PythonNumber(double value);

// A number of seconds in the environment, or nothing; and the number of event loops. Refusals name the variable.
int64_t IoThreadsFromEnvironment();
double WorkerSilenceFromEnvironment();
int64_t SpinNsFromEnvironment();  // how long event loops look for work before they sleep

}  // namespace msserving::embed
