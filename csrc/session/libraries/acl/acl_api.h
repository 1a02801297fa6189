// What this library uses of AscendCL, the C interface of Ascend's runtime (CANN), declared here so that nothing of it
// is needed to build. The functions have the names, parameters and numbers that AscendCL documents; they are looked up
// in libascendcl.so at run time (acl_library.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace msserving::acl {

using Error = int;  // aclError
inline constexpr Error kSuccess = 0;
inline constexpr Error kRepeatInitialize = 100002;  // ACL_ERROR_REPEAT_INITIALIZE

// Element types, aclDataType.
enum DataType : int {
  kFloat = 0,
  kFloat16 = 1,
  kInt8 = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 6,
  kUint16 = 7,
  kUint32 = 8,
  kInt64 = 9,
  kUint64 = 10,
  kDouble = 11,
  kBool = 12,
};

// aclrtMemcpyKind
enum CopyKind : int { kHostToHost = 0, kHostToDevice = 1, kDeviceToHost = 2, kDeviceToDevice = 3 };
// aclrtMemMallocPolicy
enum MallocPolicy : int { kHugeFirst = 0 };
// aclrtRunMode: where this process runs, on the device itself or on its host.
enum RunMode : int { kOnDevice = 0, kOnHost = 1 };

inline constexpr size_t kMaxDims = 128;
inline constexpr size_t kMaxNameLength = 128;
inline constexpr size_t kMaxBatches = 128;

// The inputs that a model has beside its own if it was built for several shapes, or for dynamic AIPP.
inline constexpr const char* kDynamicShapeInput = "ascend_mbatch_shape_data";
inline constexpr const char* kDynamicAippInput = "ascend_dynamic_aipp_data";

// aclmdlIODims
struct IoDims {
  char name[kMaxNameLength];
  size_t dim_count;
  int64_t dims[kMaxDims];
};

// aclmdlBatch
struct Batches {
  size_t count;
  uint64_t sizes[kMaxBatches];
};

using Context = void*;  // aclrtContext
struct Desc;            // aclmdlDesc
struct Dataset;         // aclmdlDataset
struct DataBuffer;      // aclDataBuffer

// X(result, name, parameters) for every function that must be there.
// clang-format off
#define MSSERVING_ACL_FUNCTIONS(X)                                                                             \
  X(Error, aclInit, (const char* config_path))                                                                 \
  X(Error, aclFinalize, ())                                                                                    \
  X(Error, aclrtGetDeviceCount, (uint32_t* count))                                                             \
  X(Error, aclrtSetDevice, (int32_t device))                                                                   \
  X(Error, aclrtResetDevice, (int32_t device))                                                                 \
  X(Error, aclrtGetRunMode, (RunMode* mode))                                                                   \
  X(Error, aclrtCreateContext, (Context* context, int32_t device))                                             \
  X(Error, aclrtDestroyContext, (Context context))                                                             \
  X(Error, aclrtSetCurrentContext, (Context context))                                                          \
  X(Error, aclrtMalloc, (void** pointer, size_t bytes, MallocPolicy policy))                                   \
  X(Error, aclrtFree, (void* pointer))                                                                         \
  X(Error, aclrtMemcpy, (void* to, size_t capacity, const void* from, size_t bytes, CopyKind kind))            \
  X(Error, aclmdlLoadFromFile, (const char* path, uint32_t* model))                                            \
  X(Error, aclmdlUnload, (uint32_t model))                                                                     \
  X(Desc*, aclmdlCreateDesc, ())                                                                               \
  X(Error, aclmdlDestroyDesc, (Desc* desc))                                                                    \
  X(Error, aclmdlGetDesc, (Desc* desc, uint32_t model))                                                        \
  X(size_t, aclmdlGetNumInputs, (Desc* desc))                                                                  \
  X(size_t, aclmdlGetNumOutputs, (Desc* desc))                                                                 \
  X(size_t, aclmdlGetInputSizeByIndex, (Desc* desc, size_t index))                                             \
  X(size_t, aclmdlGetOutputSizeByIndex, (Desc* desc, size_t index))                                            \
  X(Error, aclmdlGetInputDims, (const Desc* desc, size_t index, IoDims* dims))                                 \
  X(Error, aclmdlGetOutputDims, (const Desc* desc, size_t index, IoDims* dims))                                \
  X(Error, aclmdlGetCurOutputDims, (const Desc* desc, size_t index, IoDims* dims))                             \
  X(const char*, aclmdlGetInputNameByIndex, (const Desc* desc, size_t index))                                  \
  X(const char*, aclmdlGetOutputNameByIndex, (const Desc* desc, size_t index))                                 \
  X(DataType, aclmdlGetInputDataType, (const Desc* desc, size_t index))                                        \
  X(DataType, aclmdlGetOutputDataType, (const Desc* desc, size_t index))                                       \
  X(Error, aclmdlGetDynamicBatch, (const Desc* desc, Batches* batches))                                        \
  X(Error, aclmdlSetDynamicBatchSize, (uint32_t model, Dataset* dataset, size_t index, uint64_t size))         \
  X(Dataset*, aclmdlCreateDataset, ())                                                                         \
  X(Error, aclmdlDestroyDataset, (const Dataset* dataset))                                                     \
  X(Error, aclmdlAddDatasetBuffer, (Dataset* dataset, DataBuffer* buffer))                                     \
  X(DataBuffer*, aclCreateDataBuffer, (void* data, size_t bytes))                                              \
  X(Error, aclDestroyDataBuffer, (const DataBuffer* buffer))                                                   \
  X(Error, aclmdlExecute, (uint32_t model, const Dataset* inputs, Dataset* outputs))

// Functions that early releases lack; NULL then.
#define MSSERVING_ACL_OPTIONAL_FUNCTIONS(X)                                                                    \
  X(const char*, aclGetRecentErrMsg, ())                                                                       \
  X(Error, aclmdlGetInputDimsV2, (const Desc* desc, size_t index, IoDims* dims))
// clang-format on

struct Functions {
#define MSSERVING_ACL_MEMBER(result, name, parameters) result(*name) parameters = nullptr;
  MSSERVING_ACL_FUNCTIONS(MSSERVING_ACL_MEMBER)
  MSSERVING_ACL_OPTIONAL_FUNCTIONS(MSSERVING_ACL_MEMBER)
#undef MSSERVING_ACL_MEMBER
};

}  // namespace msserving::acl
