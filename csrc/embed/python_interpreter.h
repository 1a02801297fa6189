// The Python that runs the workers of an embedded server.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace msserving::embed {

inline constexpr int64_t kPythonTimeoutNs = 60'000'000'000;

// Which one: `option` if it is not empty, or else MSSERVING_PYTHON, or else python3 of PATH. Runs it once to see that
// mindspore_serving can be imported there, in this very `version`; returns the command of a worker, without its last
// argument. EmbedError: what is wrong, where the choice came from, and what to do. `interrupted` is called now and then
// and throws to end the waiting. Leaves no process behind, however it ends.
std::vector<std::string> FindWorkerCommand(const std::string& option, const std::string& version,
                                           const std::function<void()>& interrupted,
                                           int64_t timeout_ns = kPythonTimeoutNs);

}  // namespace msserving::embed
