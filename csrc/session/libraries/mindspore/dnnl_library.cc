#include "session/libraries/mindspore/dnnl_library.h"

#include <dlfcn.h>

namespace msserving::mindspore_session {
namespace {

// What a stream without a thread pool runs in the calling thread.
bool RunsInCallingThread(unsigned runtime) {
  return runtime == DNNL_RUNTIME_SEQ || runtime == DNNL_RUNTIME_THREADPOOL || runtime == DNNL_RUNTIME_NONE;
}

constexpr int kOtherThreadsMinor = 14;  // the first version with another DnnlThreads

struct Found {
  DnnlLibrary library;
  std::string problem;

  Found() {
    void* handle = dlopen("libdnnl.so.3", RTLD_LAZY | RTLD_NOLOAD);
    if (handle == nullptr) {
      problem = "MindSpore has loaded no oneDNN 3";
      return;
    }
    // The handle is kept: the functions below must stay where they are.
    const auto look_up = [&](const char* name, auto* function) {
      *function = reinterpret_cast<std::remove_pointer_t<decltype(function)>>(dlsym(handle, name));
      if (*function == nullptr && problem.empty()) problem = std::string("its oneDNN has no ") + name;
    };
#define MSSERVING_DNNL_LOOK_UP(name) look_up("dnnl_" #name, &library.name);
    MSSERVING_DNNL_FUNCTIONS(MSSERVING_DNNL_LOOK_UP)
#undef MSSERVING_DNNL_LOOK_UP
    if (!problem.empty()) return;
    const dnnl_version_t* version = library.version();
    if (version->major != DNNL_VERSION_MAJOR) {
      problem = "its oneDNN is of version " + std::to_string(version->major);
    } else if (!RunsInCallingThread(version->cpu_runtime)) {
      problem = "its oneDNN starts threads of its own";
    } else if (version->cpu_runtime == DNNL_RUNTIME_THREADPOOL) {
      look_up("dnnl_threadpool_interop_get_max_concurrency", &library.get_max_concurrency);
      look_up("dnnl_threadpool_interop_set_max_concurrency", &library.set_max_concurrency);
      if (version->minor < kOtherThreadsMinor) {
        look_up("dnnl_threadpool_interop_stream_create", &library.stream_create_threadpool);
      }
    }
  }
};

}  // namespace

const DnnlLibrary* DnnlLibrary::Find(std::string* problem) {
  static const Found found;
  *problem = found.problem;
  return found.problem.empty() ? &found.library : nullptr;
}

}  // namespace msserving::mindspore_session
