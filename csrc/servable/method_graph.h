// The stage graph of a method: the one execution model behind every face of the register API.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "servable/signature.h"

namespace msserving {

// A value that flows in a method: an input (stage 0) or an output of stage 1, 2, …
struct ValueRef {
  uint16_t stage = 0;
  uint16_t index = 0;
  bool operator==(const ValueRef&) const = default;
};

enum class StageKind : uint8_t {
  kPython,   // target: id of a function of the worker's Python runner
  kModel,    // target: id of a model of the worker; subgraph: which of its graphs
  kBuiltin,  // target: a Builtin
};

enum class Builtin : uint32_t { kArgmax = 0 };

struct Stage {
  StageKind kind = StageKind::kModel;
  uint32_t target = 0;
  uint32_t subgraph = 0;
  std::vector<ValueRef> inputs;
  uint32_t outputs = 1;
  uint32_t at_once = 0;  // Python stages: at most so many instances are handed over together; 0: as the worker likes
  uint32_t concurrency = 1;  // Python stages: so many batches of it may run at once, each on a thread of its own
  // Python stages: 0: the function is called per instance (the runner still gets a whole batch at once). n > 0: the
  // function is given at most n instances a call.
  uint32_t batch_size = 0;
  // Python stages with a batch_size: the function is given one array for each input, whose first dimension counts the
  // instances, and returns such arrays.
  bool stacked = false;
  std::string tag;  // what a failure is called: "Preprocess" gives "Preprocess Failed"
  // What a failure's text begins with, whole, and then failures are of the kind kCallFailed; empty: made of the tag,
  // and they are of the kind kStageFailed.
  std::string failure;
};

struct MethodGraph {
  MethodSignature signature;
  std::vector<Stage> stages;      // an instance passes them in this order
  std::vector<ValueRef> returns;  // one per output name
  int64_t timeout_ns = 0;         // one call of a function or one run of a model may take so long; 0: any time

  // Every reference points backwards to something that exists; counts fit. The message names the method and stage.
  Status Check() const;
};

}  // namespace msserving
