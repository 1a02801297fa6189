// The options that the mindspore session library's open() takes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mindspore_serving/session.h"

namespace msserving::mindspore_session {

// How a graph is run.
enum class Way {
  kAuto,    // replay if every graph can be, else run
  kReplay,  // launch the compiled kernels ourselves; an error for a graph that needs MindSpore's runtime
  kRun,     // hand each call to MindSpore's backend
};

// A graph that this process has compiled.
struct PhaseOption {
  int64_t batch_size = 0;  // 0: not compiled for a certain batch size
  std::string phase;       // the key of the compiled graph in MindSpore's graph executor
};

// Which graphs have their layers fused with what follows them.
struct Fuse {
  bool all = false;
  std::vector<int64_t> batch_sizes;

  bool Includes(int64_t batch_size) const;
};

// Whether fused 3x3 convolutions may be computed by Winograd's method.
enum class Winograd {
  kMeasured,  // where it is faster
  kNever,
  kTilesOf2,  // wherever it can be
  kTilesOf4,
};

struct Options {
  std::vector<PhaseOption> phases;  // option `phases`: "1:<phase>;4:<phase>" or "0:<phase>"; ascending
  Way way = Way::kAuto;             // option `way`: auto, replay or run
  int kernel_threads = 0;           // option `kernel_threads`: size of MindSpore's kernel pool; 0: leave as it is
  Fuse fuse;                        // option `fuse`: none, all, or batch sizes, e.g. "1;4"; needs kernel_threads
  Winograd winograd = Winograd::kMeasured;  // option `winograd`: measured, never, 2 or 4
  bool leave_when_spoilt = false;  // option `leave_when_spoilt`: "1" ends the process by SIGTERM when a graph is spoilt
  std::string mindspore_version;   // option `mindspore_version`: what runs in this process; must be given
};

// Throws std::invalid_argument naming the option.
Options ParseOptions(const MsServingOption* options, size_t count);

}  // namespace msserving::mindspore_session
