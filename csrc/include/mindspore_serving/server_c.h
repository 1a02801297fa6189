/* Embedding, the C ABI: a whole server inside a program of your own. C++ programs include server.h instead, which is a
 * header over this one.
 *
 * The program gets the front-end (gRPC and REST), the router and the supervision of workers. The models run in worker
 * processes, which are Python with mindspore_serving installed. docs/embedding.md tells how to build, link and deploy.
 *
 * Stability: within one major version of the library nothing here is removed or changes its meaning; structs only grow
 * at their end. `struct_size` says what the caller was compiled with. Only plain C crosses this border: no C++ types,
 * no exceptions, no ownership but of what is said below.
 *
 * Threads: every function may be called by any thread at any time, on one server also at the same time, but for
 * ms_serving_server_destroy(), which must be the last call with its server. Starting, stopping and reloading servables
 * happens one call after the other; ms_serving_server_stop() ends a call that waits. Several servers in one process are
 * independent of each other. In a child made by fork() a server is the parent's: there, every function but destroy
 * fails, and destroy does nothing.
 *
 * Memory: what the caller passes in is copied before a function returns. What is handed out is freed by the function
 * named with it.
 *
 * Signals and streams: handlers of the host are left alone, unless ms_serving_stop_signals_take() is called. Threads of
 * the library block all signals. Nothing is written to standard output; log lines go to standard error, or to
 * ms_serving_log_set_sink().
 */
#ifndef MINDSPORE_SERVING_SERVER_C_H_
#define MINDSPORE_SERVING_SERVER_C_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MS_SERVING_API __attribute__((visibility("default")))
#else
#define MS_SERVING_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The library's version, e.g. "3.0.0". */
MS_SERVING_API const char* ms_serving_version(void);

/* ---- Errors. Functions that can fail return NULL, or an error to be freed with ms_serving_error_free(). ---- */

typedef struct MsServingError MsServingError;

#define MS_SERVING_INVALID 1 /* something that was given; the text names it, its value and what is legal */
#define MS_SERVING_FAILED 2  /* the system, a worker or a model; the text says what and why */
#define MS_SERVING_STOPPED 3 /* the server is or was stopped, by a call, a stop signal or the progress callback */

MS_SERVING_API int32_t ms_serving_error_code(const MsServingError* error);
/* For the user, the same as the Python package's; UTF-8 as far as file names are. Lives as long as the error. */
MS_SERVING_API const char* ms_serving_error_message(const MsServingError* error);
/* NULL is allowed, as in all functions that free. */
MS_SERVING_API void ms_serving_error_free(MsServingError* error);
MS_SERVING_API void ms_serving_string_free(char* string);

/* ---- Making and ending a server ---- */

typedef struct MsServingServer MsServingServer;

typedef struct MsServingServerOptions {
  size_t struct_size;
  /* The Python that runs the workers: a path, or a name to be found in PATH. NULL: what the environment variable
   * MSSERVING_PYTHON says, or else "python3". mindspore_serving must be installed there in this library's version. */
  const char* python;
  /* Where workers' log files go; made if it is not there. NULL: "serving_logs" in the current working directory.
   * Servers of one machine that start the same servables need a directory each. */
  const char* log_directory;
  /* Event loops, 1 to 48. 0: what MSSERVING_IO_THREADS says, or else half of the processors, at most 4. */
  int64_t io_threads;
  /* A worker without a sign of life for so long is killed and started again. 0: never. Below 0: what
   * MSSERVING_WORKER_SILENCE_SECONDS says, or else 30. */
  double worker_silence_seconds;
} MsServingServerOptions;

/* Fill a struct with the defaults; `struct_size` is its sizeof. */
MS_SERVING_API void ms_serving_server_options_init(MsServingServerOptions* options, size_t struct_size);

/* Starts the threads of a server that serves nothing yet. On failure *server is NULL. `options` may be NULL. */
MS_SERVING_API MsServingError* ms_serving_server_create(const MsServingServerOptions* options,
                                                        MsServingServer** server);

/* Stops as ms_serving_server_stop() without waiting for requests, if that has not been done, and frees. */
MS_SERVING_API void ms_serving_server_destroy(MsServingServer* server);

/* Takes no new requests, answers those that were accepted for up to `drain_seconds` (0 to 86400), ends the workers and
 * closes everything: afterwards no process, thread, descriptor or shared memory of the server is left. A second call
 * returns when the first has finished. A stopped server cannot be started again; make another. */
MS_SERVING_API MsServingError* ms_serving_server_stop(MsServingServer* server, double drain_seconds);

/* ---- Servables ---- */

/* How one servable is to be started: ServableStartConfig of the Python package. */
typedef struct MsServingServableConfig {
  size_t struct_size;
  /* The directory that holds the servable's directory, absolute or relative to the current working directory. */
  const char* servable_directory;
  const char* servable_name; /* the name of the servable's directory, which holds servable_config.py */
  /* The devices it is loaded into, one worker and copy each. None: one copy on device 0. */
  const int64_t* device_ids;
  size_t device_ids_count;
  int64_t version_number;  /* 1 or larger; 0: the newest there is */
  const char* device_type; /* "Ascend", "GPU" or "CPU"; NULL: what the installed MindSpore runs on */
  /* Worker processes, at most 64; those without a device run Python stages only. */
  int64_t num_parallel_workers;
  /* Key of an encrypted model, 16, 24 or 32 bytes; NULL: not encrypted. The library keeps its copy in locked memory
   * and wipes it; the caller wipes its own. */
  const uint8_t* dec_key;
  size_t dec_key_size;
  const char* dec_mode; /* "AES-GCM" or "AES-CBC" */
} MsServingServableConfig;

MS_SERVING_API void ms_serving_servable_config_init(MsServingServableConfig* config, size_t struct_size);

/* Stands in arrays, so it never grows. */
typedef struct MsServingWorker {
  const char* label; /* "add version 1 device0" */
  const char*
      state;   /* "starting", "probing", "running", "ending", "waiting to restart", "failed", "stopped", "not needed" */
  int64_t pid; /* 0: no process now */
  uint64_t restarts;
} MsServingWorker;

/* What ms_serving_server_start_servables() waits for: all workers of the server, for the length of the call. */
typedef struct MsServingProgress {
  size_t struct_size;
  const MsServingWorker* workers;
  size_t workers_count;
} MsServingProgress;

/* Called about ten times a second on the thread that waits. Another number than 0 ends the waiting: what the call has
 * started is stopped, and it fails with MS_SERVING_STOPPED. May call ms_serving_server_stats(), nothing else. */
typedef int32_t (*MsServingProgressFunction)(void* user, const MsServingProgress* progress);

/* Starts servables, or versions of one, and waits until requests reach all of them. Configs of the same servable and
 * version are merged. If it fails, what it has started is stopped, and what ran before goes on.
 * `progress` may be NULL. There is no limit of time: models may take long to load. */
MS_SERVING_API MsServingError* ms_serving_server_start_servables(MsServingServer* server,
                                                                 const MsServingServableConfig* const* configs,
                                                                 size_t configs_count,
                                                                 MsServingProgressFunction progress, void* user);

/* Takes one version out, 0 being the newest that runs, and waits until it has gone. Its requests have `drain_seconds`
 * to be answered. */
MS_SERVING_API MsServingError* ms_serving_server_stop_servable(MsServingServer* server, const char* servable_name,
                                                               int64_t version_number, double drain_seconds);

typedef void (*MsServingLoadedFunction)(void* user, const char* servable_name, uint64_t version_number);

/* Loads the newest versions of servables that were started with version_number 0, if they are newer than the running
 * ones, which then leave. `loaded` (may be NULL) is called for each before the call returns, also when another could
 * not be loaded, which is an error at the end; the old version of that one goes on. */
MS_SERVING_API MsServingError* ms_serving_server_reload_servables(MsServingServer* server, double drain_seconds,
                                                                  MsServingLoadedFunction loaded, void* user);

/* Does the same from time to time, on a thread of the library: a version is taken when two looks in a row find its
 * files unchanged. `interval_seconds`: 0.1 to 86400, or 0, which ends it. Failures are logged. */
MS_SERVING_API MsServingError* ms_serving_server_watch_versions(MsServingServer* server, double interval_seconds,
                                                                double drain_seconds);

/* ---- Endpoints: one gRPC and one REST server each. Servables may be started before or after. ---- */

typedef struct MsServingListenOptions {
  size_t struct_size;
  int64_t max_msg_mb_size; /* the largest message taken or sent, 1 to 512 MiB */
  /* TLS: all NULL is none. PEM files; they are read again when they change. */
  const char* certificate;
  const char* private_key;
  const char* custom_ca; /* who may sign clients' certificates; needed with verify_client, ignored without */
  int32_t verify_client; /* not 0: clients must show a certificate */
  /* Limits: server.ServerLimits of the Python package tells what each does and what clients are told. */
  int64_t max_connections;
  int64_t max_streams_per_connection;
  int64_t max_pipelined_requests;
  int64_t max_header_bytes;
  double request_timeout_seconds;
  double reply_timeout_seconds;
  double idle_timeout_seconds; /* 0: never; below 0: never for gRPC, 100 for REST */
  int64_t max_resets_per_second;
  int64_t max_control_frames_per_second;
  double connection_bytes_share;
} MsServingListenOptions;

MS_SERVING_API void ms_serving_listen_options_init(MsServingListenOptions* options, size_t struct_size);

/* `address`: "ip:port", for gRPC also "unix:path". `options` may be NULL. */
MS_SERVING_API MsServingError* ms_serving_server_start_grpc(MsServingServer* server, const char* address,
                                                            const MsServingListenOptions* options);
MS_SERVING_API MsServingError* ms_serving_server_start_rest(MsServingServer* server, const char* address,
                                                            const MsServingListenOptions* options);

/* ---- Limits for all clients together, at any time; and what goes on ---- */

MS_SERVING_API MsServingError* ms_serving_server_set_max_enqueued_requests(MsServingServer* server, int64_t requests);
MS_SERVING_API MsServingError* ms_serving_server_set_max_queue_seconds(MsServingServer* server, double seconds);
MS_SERVING_API MsServingError* ms_serving_server_set_max_bytes_in_flight(MsServingServer* server, int64_t bytes);

/* *json: requests accepted, answered, refused ..., and every worker's label, state, pid and restarts. To be freed with
 * ms_serving_string_free(). Never waits for other calls but the end of a stop. */
MS_SERVING_API MsServingError* ms_serving_server_stats(MsServingServer* server, char** json);

/* ---- For programs without signal handling of their own: SIGINT and SIGTERM of the whole process ---- */

/* Notes the two signals from now on. Idempotent. While they are taken, one that comes ends calls that start or reload
 * servables, and a second one the wait of ms_serving_server_stop(). One descriptor stays open for ever. */
MS_SERVING_API void ms_serving_stop_signals_take(void);
/* Puts back what was there before and forgets what came. */
MS_SERVING_API void ms_serving_stop_signals_give_back(void);
/* Waits until one has come, and returns its number; 0 if none has within `timeout_seconds` (below 0: no limit), or if
 * they are not taken. */
MS_SERVING_API int32_t ms_serving_stop_signals_wait(double timeout_seconds);

/* ---- The log of the whole process ---- */

/* What is logged at all, 0 debug, 1 info, 2 warning, 3 error. At first what MS_SUBMODULE_LOG_v or GLOG_v say, or 2. */
MS_SERVING_API void ms_serving_log_set_level(int32_t level);

typedef void (*MsServingLogFunction)(void* user, int32_t level, const char* text, size_t text_size);

/* Log lines go to `sink` instead of standard error; NULL: back there. It gets the bare text (not terminated), on any
 * thread, also on several at once; it must return soon, and may not call the library. When this function returns the
 * sink before is not running and is not called again. */
MS_SERVING_API void ms_serving_log_set_sink(MsServingLogFunction sink, void* user);

#ifdef __cplusplus
}
#endif

#endif /* MINDSPORE_SERVING_SERVER_C_H_ */
