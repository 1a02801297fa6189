// oneDNN as MindSpore has loaded it: the functions of its C API that fused steps need, looked up by name.
#pragma once

#include <string>

#include "oneapi/dnnl/dnnl.h"

namespace msserving::mindspore_session {

#define MSSERVING_DNNL_FUNCTIONS(X)            \
  X(version)                                   \
  X(engine_create)                             \
  X(engine_destroy)                            \
  X(stream_create)                             \
  X(stream_destroy)                            \
  X(memory_desc_create_with_tag)               \
  X(memory_desc_clone)                         \
  X(memory_desc_destroy)                       \
  X(memory_desc_equal)                         \
  X(memory_desc_get_size)                      \
  X(memory_create)                             \
  X(memory_destroy)                            \
  X(memory_set_data_handle)                    \
  X(memory_get_data_handle)                    \
  X(post_ops_create)                           \
  X(post_ops_destroy)                          \
  X(post_ops_append_binary)                    \
  X(post_ops_append_eltwise)                   \
  X(primitive_attr_create)                     \
  X(primitive_attr_destroy)                    \
  X(primitive_attr_set_post_ops)               \
  X(primitive_attr_set_scratchpad_mode)        \
  X(convolution_forward_primitive_desc_create) \
  X(pooling_forward_primitive_desc_create)     \
  X(reorder_primitive_desc_create)             \
  X(primitive_desc_query)                      \
  X(primitive_desc_query_md)                   \
  X(primitive_desc_destroy)                    \
  X(primitive_create)                          \
  X(primitive_destroy)                         \
  X(primitive_execute)

// Immutable; the library stays loaded as long as the process lives.
struct DnnlLibrary {
#define MSSERVING_DNNL_MEMBER(name) decltype(&dnnl_##name) name = nullptr;
  MSSERVING_DNNL_FUNCTIONS(MSSERVING_DNNL_MEMBER)
#undef MSSERVING_DNNL_MEMBER
  // Of the threads that a primitive made by the calling thread may split its work among. Null where oneDNN has no
  // threads at all.
  dnnl_status_t (*get_max_concurrency)(int*) = nullptr;
  dnnl_status_t (*set_max_concurrency)(int) = nullptr;

  // The library that this process has open already, or null and why it will not do: none, another major version, one
  // that lacks a function, or one that starts threads of its own. Any thread.
  static const DnnlLibrary* Find(std::string* problem);
};

}  // namespace msserving::mindspore_session
