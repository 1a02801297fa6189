// The native module mindspore_serving._core: the server's half and the worker's half, each bound in a file of its own.
#include <pybind11/pybind11.h>

#include "base/log.h"

namespace msserving {
void BindServer(pybind11::module_& m);
void BindWorker(pybind11::module_& m);
}  // namespace msserving

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native core of MindSpore Serving. Private: use mindspore_serving.server.";
  m.attr("__version__") = MSSERVING_VERSION;
  m.def(
      "log",
      [](int level, const std::string& text) {
        const auto as_level = static_cast<msserving::LogLevel>(level < 0 ? 0 : level > 3 ? 3 : level);
        if (as_level >= msserving::LogThreshold()) {
          msserving::WriteLog(as_level, text);
        }
      },
      pybind11::arg("level"), pybind11::arg("text"),
      "Writes one log line; level as GLOG_v counts: 0 debug to 3 error.");
  msserving::BindServer(m);
  msserving::BindWorker(m);
}
