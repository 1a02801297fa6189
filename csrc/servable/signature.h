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
};

struct ServableSignature {
  std::string name;
  uint64_t version = 0;
  std::vector<MethodSignature> methods;  // a method's index in here names it between server and worker
  double shortest_timeout_s = 0;         // of its methods; 0: none has one
};

}  // namespace msserving
