// The pool of threads in which MindSpore's CPU kernels split their work. There is one a process.
#pragma once

#include <cstdint>
#include <functional>

#include "session/libraries/mindspore/dnnl_library.h"

namespace mindspore {
class ActorThreadPool;
}

namespace msserving::mindspore_session {

// The number of threads among which a kernel may split its work; the calling thread is one of them. 0 leaves the pool
// as it is. Takes effect only after MindSpore has compiled its first graph; false if it has not.
bool SizeKernelPool(int threads);

// The same threads for oneDNN's primitives. To be used by one thread at a time; other users of the pool do not harm it.
class KernelThreads final : public DnnlThreads {
 public:
  // `threads`: what SizeKernelPool() was given, at least 1. Throws std::runtime_error if MindSpore has no pool yet.
  explicit KernelThreads(int threads);

  int get_num_threads() const override { return threads_; }
  bool get_in_parallel() const override;
  // Returns when all of them are done. From within one of them they run one after the other.
  void parallel_for(int n, const std::function<void(int, int)>& fn) override;
  uint64_t get_flags() const override { return 0; }
  void wait() override {}

 private:
  mindspore::ActorThreadPool* const pool_;
  const int threads_;
};

}  // namespace msserving::mindspore_session
