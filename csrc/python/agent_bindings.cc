// What launchers and agents of distributed servables use of the core besides the connections to their worker.
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <string_view>

#include "python/model_key.h"
#include "python/session_conversions.h"
#include "server/log_file.h"
#include "worker/agent_link.h"
#include "worker/model_file.h"

namespace py = pybind11;

namespace msserving {

py::bytes DecryptToBytes(const std::string& path, const Secret& key, const std::string& mode) {
  std::string content;
  Status status;
  {
    py::gil_scoped_release no_gil;
    status = DecryptModelFile(path, key, mode, &content);
  }
  if (!status.ok()) {
    throw py::value_error(status.message());
  }
  return content;
}

namespace {

// Used by one thread, but the link's own.
class Launcher {
 public:
  explicit Launcher(int fd) : link_(UniqueFd(fd)) {}

  py::bytes ReceiveOrder() {
    std::string order;
    Status status;
    {
      py::gil_scoped_release no_gil;
      status = link_.ReceiveOrder(&order, &key_);
      if (status.ok()) {
        status = link_.Follow();
      }
    }
    Check(status);
    return order;
  }

  py::bytes Decrypt(const std::string& path, const std::string& mode) const {
    if (key_ == nullptr) {
      throw py::value_error("there is no key to decrypt " + path + " with");
    }
    const std::shared_ptr<Secret> key = key_;
    return DecryptToBytes(path, *key, mode);
  }

  void ForgetKey() { key_.reset(); }
  void Send(const std::string& text) { Check(link_.Send(text)); }

 private:
  AgentLink link_;
  std::shared_ptr<Secret> key_;
};

class PythonLogFile {
 public:
  PythonLogFile(const std::string& path, bool append) : file_(LogFileOptions::FromEnvironment()) {
    Check(file_.Open(path, append));
  }
  void Write(const py::bytes& text) { file_.Write(std::string_view(text)); }
  void EndLine() { file_.EndLine(); }

 private:
  LogFile file_;
};

}  // namespace

void BindAgent(py::module_& m) {
  py::class_<Launcher>(m, "AgentLink", "An agent process's end of the socket to its launcher. Private.")
      .def(py::init<int>(), py::arg("fd"), "Takes ownership of the socket.")
      .def("receive_order", &Launcher::ReceiveOrder,
           "Waits for the order and returns it; from then on the process is killed when the launcher has gone. Once. "
           "ConnectionError: the launcher has gone.")
      .def("decrypt", &Launcher::Decrypt, py::arg("path"), py::arg("mode"),
           "The content of an encrypted model file, with the key that came with the order. ValueError: there was none, "
           "or the file is not encrypted so, or not with this key.")
      .def("forget_key", &Launcher::ForgetKey, "Wipes the key; nothing can be decrypted any more.")
      .def("send", &Launcher::Send, py::arg("text"), "Tells the launcher. ConnectionError: it has gone.");
  py::class_<PythonLogFile>(m, "LogFile", "A log file of bounded size, as workers have. One thread at a time. Private.")
      .def(py::init<const std::string&, bool>(), py::arg("path"), py::arg("append"))
      .def("write", &PythonLogFile::Write, py::arg("text"))
      .def("end_line", &PythonLogFile::EndLine, "Ends the last line, if it has no end.");
}

}  // namespace msserving
