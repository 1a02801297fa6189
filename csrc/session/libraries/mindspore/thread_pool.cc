#include "session/libraries/mindspore/thread_pool.h"

#include "actor/actormgr.h"
#include "thread/actor_threadpool.h"

namespace msserving::mindspore_session {

bool SizeKernelPool(int threads) {
  if (threads == 0) return true;
  auto* pool = mindspore::ActorMgr::GetActorMgrRef()->GetActorThreadPool();
  if (pool == nullptr) return false;
  // The pool counts the threads of its actors among those that kernels may use.
  const size_t actors = pool->GetActorThreadNum();
  pool->SetKernelThreadNum(static_cast<size_t>(threads) > actors ? static_cast<size_t>(threads) - actors : 0);
  return true;
}

}  // namespace msserving::mindspore_session
