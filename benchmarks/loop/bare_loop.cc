// The innermost loop of bare_session.py, which opens this library: a session run back to back, with nothing between the
// runs. Python's own loop would add most of a microsecond to each.
#include <cstdint>

#include "mindspore_serving/session.h"

using Run = int (*)(MsServingSession*, const MsServingTensor*, MsServingTensor*);

// Returns how many runs were made: less than `runs` after a failure.
extern "C" __attribute__((visibility("default"))) uint64_t bare_loop(Run run, MsServingSession* session,
                                                                     const MsServingTensor* inputs,
                                                                     MsServingTensor* outputs, uint64_t runs) {
  for (uint64_t i = 0; i < runs; ++i) {
    if (run(session, inputs, outputs) != 0) {
      return i;
    }
  }
  return runs;
}
