// What the front-end knows of a method: its names. (What a worker knows is method_graph.h.)
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace msserving {

struct MethodSignature {
  std::string name;
  std::vector<std::string> inputs;   // order of the registered function's parameters
  std::vector<std::string> outputs;  // order of output_names
  bool has_python = false;           // it has a Python stage: extra workers run it, too
  bool has_model = false;            // it has a model stage: nobody runs it without a device worker
};

struct ServableSignature {
  std::string name;
  uint64_t version = 0;
  std::vector<MethodSignature> methods;  // a method's index in here names it between server and worker
  bool has_models = false;               // whether methods or user code run them
  double shortest_timeout_s = 0;         // of its methods; 0: none has one
};

}  // namespace msserving
