/* The session ABI: how the core runs a model without linking the library that runs it.
 *
 * A session library is a shared object that exports one function, ms_serving_session_library(). The core opens it
 * with dlopen() in a worker process and calls nothing else. Bring your own back-end by implementing this header;
 * csrc/session/libraries/test_double is the smallest complete example.
 *
 * A session is one loaded graph (one model file, or one sub-graph of a model), possibly compiled for several batch
 * sizes. Everything is plain C: no exceptions, no C++ types and no ownership cross this border.
 *
 * Threads: at most one call at a time on one session, from any thread. Different sessions may be used in parallel.
 * Memory: strings and arrays that a session hands out belong to it and stay valid until it is closed, except output
 * tensors, which stay valid until the next run() or close() of that session.
 */
#ifndef MINDSPORE_SERVING_SESSION_H_
#define MINDSPORE_SERVING_SESSION_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MS_SERVING_SESSION_ABI_VERSION 1
#define MS_SERVING_SESSION_MAX_RANK 8
/* Input buffers handed to run() start at a multiple of this many bytes. */
#define MS_SERVING_SESSION_ALIGNMENT 64

/* Element types carry the numbers of the wire's DataType enum (proto/ms_service.proto): BOOL 1, INT8 2, UINT8 3,
 * INT16 4, UINT16 5, INT32 6, UINT32 7, INT64 8, UINT64 9, FLOAT16 10, FLOAT32 11, FLOAT64 12. */

/* What a graph's input or output looks like. A dimension of -1 is dynamic. */
typedef struct MsServingTensorInfo {
  const char* name; /* may be empty, never NULL */
  int32_t dtype;
  int32_t rank; /* 0 to MS_SERVING_SESSION_MAX_RANK, or -1: dynamic rank */
  int64_t dims[MS_SERVING_SESSION_MAX_RANK];
} MsServingTensorInfo;

/* A tensor's bytes, C order, no padding between rows. */
typedef struct MsServingTensor {
  void* data;
  uint64_t bytes;
  int32_t dtype;
  int32_t rank;
  int64_t dims[MS_SERVING_SESSION_MAX_RANK];
} MsServingTensor;

typedef struct MsServingSessionInfo {
  const MsServingTensorInfo* inputs;
  size_t inputs_count;
  const MsServingTensorInfo* outputs;
  size_t outputs_count;
  /* The sizes of the leading dimension that run() takes, ascending, for a graph compiled for several. Empty: the
   * shapes of `inputs` are the only ones (dimensions of -1 take any size). */
  const int64_t* batch_sizes;
  size_t batch_sizes_count;
  /* How the graph is run, for the log and the metrics, e.g. "kernel replay". */
  const char* way;
} MsServingSessionInfo;

typedef struct MsServingOption {
  const char* key;
  const char* value;
} MsServingOption;

typedef struct MsServingSession MsServingSession; /* the library's own */

/* Functions return 0, or another number after a failure that last_error() explains. */
typedef struct MsServingSessionLibrary {
  uint32_t abi_version; /* MS_SERVING_SESSION_ABI_VERSION of the header it was built with */
  const char* name;     /* e.g. "mindspore" */

  /* Loads a graph as the options say; which options exist is the library's business (an unknown one is an error).
   * On failure *session is NULL and the reason is written to error (at most error_size bytes, always terminated). */
  int (*open)(const MsServingOption* options, size_t options_count, MsServingSession** session, char* error,
              size_t error_size);

  const MsServingSessionInfo* (*describe)(const MsServingSession* session);

  /* Runs the graph once. `inputs` has inputs_count tensors whose dtypes and shapes the core has checked against
   * describe(); their data is only read. The session fills `outputs` (outputs_count entries) with tensors that it
   * owns. An output may alias an input. */
  int (*run)(MsServingSession* session, const MsServingTensor* inputs, MsServingTensor* outputs);

  /* The reason of the session's last failure. */
  const char* (*last_error)(const MsServingSession* session);

  void (*close)(MsServingSession* session);
} MsServingSessionLibrary;

/* The one exported symbol. The table lives as long as the library. */
typedef const MsServingSessionLibrary* (*MsServingSessionLibraryFunction)(void);
#define MS_SERVING_SESSION_ENTRY "ms_serving_session_library"

#ifdef __cplusplus
}
#endif

#endif /* MINDSPORE_SERVING_SESSION_H_ */
