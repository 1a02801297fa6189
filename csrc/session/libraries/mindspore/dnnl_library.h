// oneDNN as MindSpore has loaded it: the functions of its C API that fused steps need, looked up by name.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "oneapi/dnnl/dnnl.h"

namespace msserving::mindspore_session {

#define MSSERVING_DNNL_FUNCTIONS(X)              \
  X(version)                                     \
  X(engine_create)                               \
  X(engine_destroy)                              \
  X(stream_create)                               \
  X(stream_destroy)                              \
  X(memory_desc_create_with_tag)                 \
  X(memory_desc_clone)                           \
  X(memory_desc_destroy)                         \
  X(memory_desc_equal)                           \
  X(memory_desc_get_size)                        \
  X(memory_create)                               \
  X(memory_destroy)                              \
  X(memory_set_data_handle)                      \
  X(memory_get_data_handle)                      \
  X(post_ops_create)                             \
  X(post_ops_destroy)                            \
  X(post_ops_append_binary)                      \
  X(post_ops_append_eltwise)                     \
  X(primitive_attr_create)                       \
  X(primitive_attr_destroy)                      \
  X(primitive_attr_set_post_ops)                 \
  X(primitive_attr_set_scratchpad_mode)          \
  X(convolution_forward_primitive_desc_create)   \
  X(pooling_forward_primitive_desc_create)       \
  X(inner_product_forward_primitive_desc_create) \
  X(reorder_primitive_desc_create)               \
  X(primitive_desc_query)                        \
  X(primitive_desc_query_md)                     \
  X(primitive_desc_destroy)                      \
  X(primitive_create)                            \
  X(primitive_destroy)                           \
  X(primitive_execute)

// What oneDNN calls a thread pool: its functions in oneDNN's order. Up to version 3.10 there is no wait(); its place is
// that of a destructor there, which oneDNN never calls. From 3.14 on there are more.
class DnnlThreads {
 public:
  virtual int get_num_threads() const = 0;
  virtual bool get_in_parallel() const = 0;
  virtual void parallel_for(int n, const std::function<void(int, int)>& fn) = 0;  // fn(i, n) for all i below n
  virtual uint64_t get_flags() const = 0;  // 0: parallel_for() returns when all of them are done
  virtual void wait() = 0;

 protected:
  ~DnnlThreads() = default;
};

// Immutable; the library stays loaded as long as the process lives.
struct DnnlLibrary {
#define MSSERVING_DNNL_MEMBER(name) decltype(&dnnl_##name) name = nullptr;
  MSSERVING_DNNL_FUNCTIONS(MSSERVING_DNNL_MEMBER)
#undef MSSERVING_DNNL_MEMBER
  // Of the threads that a primitive made by the calling thread may split its work among. Null where oneDNN has no
  // threads at all.
  dnnl_status_t (*get_max_concurrency)(int*) = nullptr;
  dnnl_status_t (*set_max_concurrency)(int) = nullptr;

  // A stream whose primitives split their work among a DnnlThreads. Null if this library cannot, or wants another
  // interface.
  dnnl_status_t (*stream_create_threadpool)(dnnl_stream_t*, dnnl_engine_t, void*) = nullptr;

  // The library that this process has open already, or null and why it will not do: none, another major version, one
  // that lacks a function, or one that starts threads of its own. Any thread.
  static const DnnlLibrary* Find(std::string* problem);
};

}  // namespace msserving::mindspore_session
