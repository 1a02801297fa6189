// The native module mindspore_serving._core: the server's half and the worker's half, each bound in a file of its own.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/log_event.h"

namespace msserving {
void BindRanks(pybind11::module_& m);
void BindServer(pybind11::module_& m);
void BindWorker(pybind11::module_& m);
void BindAgent(pybind11::module_& m);
}  // namespace msserving

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native core of MindSpore Serving. Private: use mindspore_serving.server.";
  m.attr("__version__") = MSSERVING_VERSION;
  m.def(
      "log",
      [](int level, const std::string& text) {
        const auto as_level = static_cast<msserving::LogLevel>(std::clamp(level, 0, 3));
        if (as_level >= msserving::LogThreshold()) {
          msserving::WriteLog(as_level, text);
        }
      },
      pybind11::arg("level"), pybind11::arg("text"),
      "Writes one log line; level as GLOG_v counts: 0 debug to 3 error.");
  m.def(
      "log_event",
      [](int level, const std::string& event, const std::vector<std::pair<std::string, std::string>>& fields) {
        msserving::LogEvent line(static_cast<msserving::LogLevel>(std::clamp(level, 0, 3)), event);
        for (const auto& [key, value] : fields) {
          line.With(key, value);
        }
      },
      pybind11::arg("level"), pybind11::arg("event"), pybind11::arg("fields"),
      "Writes one log line of an event: event=... key=value ...; level as for log().");
  msserving::BindServer(m);
  msserving::BindRanks(m);
  msserving::BindWorker(m);
  msserving::BindAgent(m);
}
