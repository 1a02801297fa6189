#include "session/libraries/mindspore/thread_pool.h"

#include <stdexcept>

#include "actor/actormgr.h"
#include "thread/actor_threadpool.h"

namespace msserving::mindspore_session {
namespace {

thread_local bool t_in_parallel = false;

mindspore::ActorThreadPool* KernelPool() { return mindspore::ActorMgr::GetActorMgrRef()->GetActorThreadPool(); }

}  // namespace

bool SizeKernelPool(int threads) {
  if (threads == 0) return true;
  auto* pool = KernelPool();
  if (pool == nullptr) return false;
  // The pool counts the threads of its actors among those that kernels may use.
  const size_t actors = pool->GetActorThreadNum();
  pool->SetKernelThreadNum(static_cast<size_t>(threads) > actors ? static_cast<size_t>(threads) - actors : 0);
  return true;
}

KernelThreads::KernelThreads(int threads) : pool_(KernelPool()), threads_(threads) {
  if (pool_ == nullptr) throw std::runtime_error("MindSpore has no pool of kernel threads yet");
}

bool KernelThreads::get_in_parallel() const { return t_in_parallel; }

void KernelThreads::parallel_for(int n, const std::function<void(int, int)>& fn) {
  if (n <= 1 || t_in_parallel) {
    for (int i = 0; i < n; ++i) fn(i, n);
    return;
  }
  const auto run = [&fn, n](void*, int i, float, float) {
    t_in_parallel = true;
    fn(i, n);
    t_in_parallel = false;
    return mindspore::THREAD_OK;
  };
  pool_->ParallelLaunch(run, nullptr, n);
}

}  // namespace msserving::mindspore_session
