// The pool of threads in which MindSpore's CPU kernels split their work. There is one a process.
#pragma once

namespace msserving::mindspore_session {

// The number of threads among which a kernel may split its work; the calling thread is one of them. 0 leaves the pool
// as it is. Takes effect only after MindSpore has compiled its first graph; false if it has not.
bool SizeKernelPool(int threads);

}  // namespace msserving::mindspore_session
