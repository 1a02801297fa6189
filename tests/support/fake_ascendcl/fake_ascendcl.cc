#include "fake_ascendcl.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <type_traits>

#include "fake_model.h"
#include "session/libraries/acl/acl_api.h"

// The names that AscendCL's objects have here.
namespace msserving::acl {
struct Desc {
  uint32_t model = 0;
};
struct DataBuffer {
  void* data = nullptr;
  size_t bytes = 0;
};
struct Dataset {
  std::vector<DataBuffer*> buffers;
  uint64_t batch = 0;
};
}  // namespace msserving::acl

using namespace msserving::acl;  // NOLINT(build/namespaces): this file defines that API

namespace {

constexpr Error kFailure = 500001;
constexpr Error kInvalidParam = 100000;
constexpr Error kUninitialised = 100001;
constexpr Error kInvalidDevice = 107001;
constexpr Error kBadModel = 100014;

struct State {
  std::mutex mutex;
  bool initialised = false;
  std::map<int32_t, int> devices;
  std::map<Context, int32_t> contexts;  // the device of each
  std::map<void*, std::vector<char>> memory;
  std::map<uint32_t, fake_ascendcl::Model> models;
  std::set<const void*> objects;         // descriptions, datasets, data buffers
  std::map<uint32_t, uint64_t> batches;  // of each model's last run
  uint32_t last_model = 0;
  std::map<std::string, size_t> calls;
  std::string broken;
};

State& state() {
  static auto* made = new State();
  return *made;
}

thread_local Context current_context = nullptr;
thread_local std::string recent_error;

const char* Setting(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): tests set variables between calls
  return value != nullptr ? value : "";
}

Error Fail(Error code, const std::string& text) {
  recent_error = "EH9999: Inner Error!\n        " + text + "\n";
  return code;
}

Error Break(const char* function, const std::string& rule) {
  state().broken += std::string(function) + ": " + rule + "\n";
  return Fail(kInvalidParam, std::string(function) + ": " + rule);
}

// What a function may count on.
enum Needs { kNothing, kInit, kCurrentContext };

// Holds the double's lock during a call, counts it, and says whether it is to fail.
class Call {
 public:
  Call(const char* function, Needs needs) : lock_(state().mutex) {
    const size_t before = state().calls[function]++;
    const std::string wanted = Setting("FAKE_ASCENDCL_FAIL");
    const size_t equals = wanted.find('=');
    const std::string after = Setting("FAKE_ASCENDCL_FAIL_AFTER");
    if (wanted.substr(0, equals) == function && before >= std::strtoull(after.c_str(), nullptr, 10)) {
      const Error code = equals == std::string::npos ? kFailure : std::atoi(wanted.c_str() + equals + 1);
      error = Fail(code, std::string("[Fake]") + function + " was told to fail.");
    } else if (needs >= kInit && !state().initialised) {
      Break(function, "called before aclInit");
      error = kUninitialised;
    } else if (needs == kCurrentContext && state().contexts.count(current_context) == 0) {
      error = Break(function, "called without a current context");
    }
  }
  Error error = kSuccess;

 private:
  std::lock_guard<std::mutex> lock_;
};

size_t Live() {
  const State& s = state();
  return s.devices.size() + s.contexts.size() + s.memory.size() + s.models.size() + s.objects.size();
}

uint64_t LargestBatch(const fake_ascendcl::Model& model) {
  uint64_t largest = 1;
  for (const uint64_t batch : model.batches) largest = batch > largest ? batch : largest;
  return largest;
}

const fake_ascendcl::Model& ModelOf(const Desc* desc) { return state().models.at(desc->model); }

void Describe(const fake_ascendcl::Tensor& tensor, uint64_t batch, IoDims* dims) {
  *dims = IoDims{};
  std::snprintf(dims->name, sizeof(dims->name), "%s", tensor.name.c_str());
  dims->dim_count = tensor.dims.size();
  for (size_t d = 0; d < tensor.dims.size(); ++d) {
    dims->dims[d] = tensor.dims[d] == -1 && batch > 0 ? static_cast<int64_t>(batch) : tensor.dims[d];
  }
}

DataType TypeOf(const fake_ascendcl::Tensor& tensor) {
  constexpr DataType kTypes[] = {kBool,   kInt8,  kUint8,  kInt16,   kUint16, kInt32,
                                 kUint32, kInt64, kUint64, kFloat16, kFloat,  kDouble};
  const auto index = static_cast<size_t>(tensor.wire_dtype) - 1;
  return index < std::size(kTypes) ? kTypes[index] : static_cast<DataType>(27);  // bfloat16
}

// The device's memory at an address the library was given, or nothing.
std::vector<char>* DeviceMemory(const void* pointer) {
  const auto found = state().memory.find(const_cast<void*>(pointer));
  return found == state().memory.end() ? nullptr : &found->second;
}

template <typename T>
Error Destroy(const char* function, const T* object) {
  if (state().objects.erase(object) == 0) return Break(function, "given something that it did not make, or twice");
  delete object;
  return kSuccess;
}

template <typename T>
T* Make() {
  auto* object = new T();
  state().objects.insert(object);
  return object;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

size_t fake_ascendcl_live() {
  std::lock_guard<std::mutex> lock(state().mutex);
  return Live();
}

const char* fake_ascendcl_broken_rules() { return state().broken.c_str(); }

size_t fake_ascendcl_calls(const char* function) {
  std::lock_guard<std::mutex> lock(state().mutex);
  return state().calls[function];
}

void fake_ascendcl_reset() {
  std::lock_guard<std::mutex> lock(state().mutex);
  state().calls.clear();
  state().broken.clear();
}

const char* aclGetRecentErrMsg() { return recent_error.c_str(); }

Error aclInit(const char*) {
  Call call("aclInit", kNothing);
  if (call.error != kSuccess) return call.error;
  if (*Setting("FAKE_ASCENDCL_FOREIGN") != 0) {
    state().initialised = true;
    return Fail(kRepeatInitialize, "repeatedly initialized");
  }
  if (state().initialised) return Break("aclInit", "called twice");
  state().initialised = true;
  return kSuccess;
}

Error aclFinalize() {
  Call call("aclFinalize", kInit);
  if (call.error != kSuccess) return call.error;
  const size_t live = Live();
  if (live > 0) Break("aclFinalize", std::to_string(live) + " things are not given back");
  state().initialised = false;
  if (const char* path = Setting("FAKE_ASCENDCL_REPORT"); *path != 0) {
    if (std::FILE* file = std::fopen(path, "a"); file != nullptr) {
      std::fprintf(file, "live %zu broken '%s'\n", live, state().broken.c_str());
      std::fclose(file);
    }
  }
  return live > 0 ? kFailure : kSuccess;
}

Error aclrtGetDeviceCount(uint32_t* count) {
  Call call("aclrtGetDeviceCount", kInit);
  const char* devices = Setting("FAKE_ASCENDCL_DEVICES");
  *count = *devices != 0 ? static_cast<uint32_t>(std::atoi(devices)) : 2;
  return call.error;
}

Error aclrtSetDevice(int32_t device) {
  uint32_t count = 0;
  aclrtGetDeviceCount(&count);
  Call call("aclrtSetDevice", kInit);
  if (call.error != kSuccess) return call.error;
  if (device < 0 || static_cast<uint32_t>(device) >= count) {
    return Fail(kInvalidDevice, "invalid device ID " + std::to_string(device));
  }
  ++state().devices[device];
  return kSuccess;
}

Error aclrtResetDevice(int32_t device) {
  Call call("aclrtResetDevice", kInit);
  if (call.error != kSuccess) return call.error;
  if (state().devices.count(device) == 0) return Break("aclrtResetDevice", "the device was not set");
  if (--state().devices[device] == 0) state().devices.erase(device);
  for (const auto& [context, of] : state().contexts) {
    if (of == device) return Break("aclrtResetDevice", "a context of the device is still there");
  }
  return kSuccess;
}

Error aclrtGetRunMode(RunMode* mode) {
  Call call("aclrtGetRunMode", kInit);
  *mode = *Setting("FAKE_ASCENDCL_ON_DEVICE") != 0 ? kOnDevice : kOnHost;
  return call.error;
}

Error aclrtCreateContext(Context* context, int32_t device) {
  Call call("aclrtCreateContext", kInit);
  if (call.error != kSuccess) return call.error;
  if (state().devices.count(device) == 0) return Break("aclrtCreateContext", "the device is not set");
  *context = new char;
  state().contexts[*context] = device;
  return kSuccess;
}

Error aclrtDestroyContext(Context context) {
  Call call("aclrtDestroyContext", kInit);
  if (call.error != kSuccess) return call.error;
  if (state().contexts.erase(context) == 0) return Break("aclrtDestroyContext", "there is no such context");
  delete static_cast<char*>(context);
  return kSuccess;
}

Error aclrtSetCurrentContext(Context context) {
  Call call("aclrtSetCurrentContext", kInit);
  if (call.error != kSuccess) return call.error;
  if (state().contexts.count(context) == 0) return Break("aclrtSetCurrentContext", "there is no such context");
  current_context = context;
  return kSuccess;
}

// The address is one that the host cannot read or write: the bytes are elsewhere.
Error aclrtMalloc(void** pointer, size_t bytes, MallocPolicy) {
  Call call("aclrtMalloc", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  if (bytes == 0) return Break("aclrtMalloc", "0 bytes");
  void* address = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) return Fail(200000, "out of memory");
  state().memory[address].assign(bytes, '\x7f');
  *pointer = address;
  return kSuccess;
}

Error aclrtFree(void* pointer) {
  Call call("aclrtFree", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  std::vector<char>* memory = DeviceMemory(pointer);
  if (memory == nullptr) return Break("aclrtFree", "no memory of the device, or freed twice");
  munmap(pointer, memory->size());
  state().memory.erase(pointer);
  return kSuccess;
}

Error aclrtMemcpy(void* to, size_t capacity, const void* from, size_t bytes, CopyKind kind) {
  Call call("aclrtMemcpy", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  std::vector<char>* target = DeviceMemory(to);
  std::vector<char>* source = DeviceMemory(from);
  if (*Setting("FAKE_ASCENDCL_ON_DEVICE") != 0) {
    if (kind != kDeviceToDevice) return Break("aclrtMemcpy", "on the device, copies are from device to device");
  } else if ((target != nullptr) != (kind == kHostToDevice) || (source != nullptr) != (kind == kDeviceToHost)) {
    return Break("aclrtMemcpy", "the kind of copy is not that of its addresses");
  }
  if (bytes > capacity || (target != nullptr && capacity > target->size()) ||
      (source != nullptr && bytes > source->size())) {
    return Break("aclrtMemcpy", "more bytes than there is room for");
  }
  std::memcpy(target != nullptr ? target->data() : to, source != nullptr ? source->data() : from, bytes);
  return kSuccess;
}

Error aclmdlLoadFromFile(const char* path, uint32_t* model) {
  Call call("aclmdlLoadFromFile", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  std::string error;
  auto read = fake_ascendcl::ReadModel(path, &error);
  if (!read) return Fail(kBadModel, error);
  *model = ++state().last_model;
  state().models[*model] = std::move(*read);
  return kSuccess;
}

Error aclmdlUnload(uint32_t model) {
  Call call("aclmdlUnload", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  return state().models.erase(model) == 0 ? Break("aclmdlUnload", "there is no such model") : kSuccess;
}

Desc* aclmdlCreateDesc() {
  Call call("aclmdlCreateDesc", kInit);
  return call.error != kSuccess ? nullptr : Make<Desc>();
}

Error aclmdlDestroyDesc(Desc* desc) {
  Call call("aclmdlDestroyDesc", kInit);
  return call.error != kSuccess ? call.error : Destroy("aclmdlDestroyDesc", desc);
}

Error aclmdlGetDesc(Desc* desc, uint32_t model) {
  Call call("aclmdlGetDesc", kInit);
  if (call.error != kSuccess) return call.error;
  if (state().models.count(model) == 0) return Break("aclmdlGetDesc", "there is no such model");
  desc->model = model;
  return kSuccess;
}

size_t aclmdlGetNumInputs(Desc* desc) {
  Call call("aclmdlGetNumInputs", kInit);
  return ModelOf(desc).inputs.size();
}

size_t aclmdlGetNumOutputs(Desc* desc) {
  Call call("aclmdlGetNumOutputs", kInit);
  return ModelOf(desc).outputs.size();
}

size_t aclmdlGetInputSizeByIndex(Desc* desc, size_t index) {
  Call call("aclmdlGetInputSizeByIndex", kInit);
  return fake_ascendcl::Bytes(ModelOf(desc).inputs.at(index), LargestBatch(ModelOf(desc)));
}

size_t aclmdlGetOutputSizeByIndex(Desc* desc, size_t index) {
  Call call("aclmdlGetOutputSizeByIndex", kInit);
  return fake_ascendcl::Bytes(ModelOf(desc).outputs.at(index), LargestBatch(ModelOf(desc)));
}

Error aclmdlGetInputDims(const Desc* desc, size_t index, IoDims* dims) {
  Call call("aclmdlGetInputDims", kInit);
  Describe(ModelOf(desc).inputs.at(index), 0, dims);
  return call.error;
}

Error aclmdlGetInputDimsV2(const Desc* desc, size_t index, IoDims* dims) {
  Call call("aclmdlGetInputDimsV2", kInit);
  Describe(ModelOf(desc).inputs.at(index), 0, dims);
  return call.error;
}

Error aclmdlGetOutputDims(const Desc* desc, size_t index, IoDims* dims) {
  Call call("aclmdlGetOutputDims", kInit);
  Describe(ModelOf(desc).outputs.at(index), ModelOf(desc).batches.empty() ? 0 : LargestBatch(ModelOf(desc)), dims);
  return call.error;
}

Error aclmdlGetCurOutputDims(const Desc* desc, size_t index, IoDims* dims) {
  Call call("aclmdlGetCurOutputDims", kInit);
  Describe(ModelOf(desc).outputs.at(index), state().batches[desc->model], dims);
  return call.error;
}

const char* aclmdlGetInputNameByIndex(const Desc* desc, size_t index) {
  Call call("aclmdlGetInputNameByIndex", kInit);
  return ModelOf(desc).inputs.at(index).name.c_str();
}

const char* aclmdlGetOutputNameByIndex(const Desc* desc, size_t index) {
  Call call("aclmdlGetOutputNameByIndex", kInit);
  return ModelOf(desc).outputs.at(index).name.c_str();
}

DataType aclmdlGetInputDataType(const Desc* desc, size_t index) {
  Call call("aclmdlGetInputDataType", kInit);
  return TypeOf(ModelOf(desc).inputs.at(index));
}

DataType aclmdlGetOutputDataType(const Desc* desc, size_t index) {
  Call call("aclmdlGetOutputDataType", kInit);
  return TypeOf(ModelOf(desc).outputs.at(index));
}

Error aclmdlGetDynamicBatch(const Desc* desc, Batches* batches) {
  Call call("aclmdlGetDynamicBatch", kInit);
  *batches = Batches{};
  for (const uint64_t batch : ModelOf(desc).batches) batches->sizes[batches->count++] = batch;
  return call.error;
}

Error aclmdlSetDynamicBatchSize(uint32_t model, Dataset* dataset, size_t index, uint64_t size) {
  Call call("aclmdlSetDynamicBatchSize", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  const auto& loaded = state().models.at(model);
  const auto& batches = loaded.batches;
  if (index >= loaded.inputs.size() || loaded.inputs[index].name != kDynamicShapeInput) {
    return Break("aclmdlSetDynamicBatchSize", "that is not the input for it");
  }
  if (std::count(batches.begin(), batches.end(), size) == 0) {
    return Fail(145013, "batch size " + std::to_string(size) + " is none of the model's");
  }
  dataset->batch = size;
  return kSuccess;
}

Dataset* aclmdlCreateDataset() {
  Call call("aclmdlCreateDataset", kInit);
  return call.error != kSuccess ? nullptr : Make<Dataset>();
}

Error aclmdlDestroyDataset(const Dataset* dataset) {
  Call call("aclmdlDestroyDataset", kInit);
  return call.error != kSuccess ? call.error : Destroy("aclmdlDestroyDataset", dataset);
}

Error aclmdlAddDatasetBuffer(Dataset* dataset, DataBuffer* buffer) {
  Call call("aclmdlAddDatasetBuffer", kInit);
  if (call.error != kSuccess) return call.error;
  dataset->buffers.push_back(buffer);
  return kSuccess;
}

DataBuffer* aclCreateDataBuffer(void* data, size_t bytes) {
  Call call("aclCreateDataBuffer", kInit);
  if (call.error != kSuccess) return nullptr;
  auto* buffer = Make<DataBuffer>();
  *buffer = {data, bytes};
  return buffer;
}

Error aclDestroyDataBuffer(const DataBuffer* buffer) {
  Call call("aclDestroyDataBuffer", kInit);
  return call.error != kSuccess ? call.error : Destroy("aclDestroyDataBuffer", buffer);
}

Error aclmdlExecute(uint32_t model, const Dataset* inputs, Dataset* outputs) {
  Call call("aclmdlExecute", kCurrentContext);
  if (call.error != kSuccess) return call.error;
  const auto& loaded = state().models.at(model);
  if (inputs->buffers.size() != loaded.inputs.size() || outputs->buffers.size() != loaded.outputs.size()) {
    return Break("aclmdlExecute", "the datasets do not have the model's number of buffers");
  }
  if (!loaded.batches.empty() && inputs->batch == 0) return Break("aclmdlExecute", "no batch size was set");
  const uint64_t batch = loaded.batches.empty() ? 1 : inputs->batch;
  std::vector<const void*> from;
  std::vector<void*> to;
  const auto add = [](const DataBuffer* buffer, size_t needed, auto* pointers) {
    std::vector<char>* memory = DeviceMemory(buffer->data);
    if (memory == nullptr || buffer->bytes < needed || buffer->bytes > memory->size()) return false;
    pointers->push_back(memory->data());
    return true;
  };
  const uint64_t largest = LargestBatch(loaded);
  for (size_t i = 0; i < loaded.inputs.size(); ++i) {
    if (!add(inputs->buffers[i], fake_ascendcl::Bytes(loaded.inputs[i], largest), &from)) {
      return Break("aclmdlExecute", "input " + std::to_string(i) + " is too small, or not on the device");
    }
  }
  for (size_t i = 0; i < loaded.outputs.size(); ++i) {
    if (!add(outputs->buffers[i], fake_ascendcl::Bytes(loaded.outputs[i], largest), &to)) {
      return Break("aclmdlExecute", "output " + std::to_string(i) + " is too small, or not on the device");
    }
  }
  fake_ascendcl::Run(loaded, batch, from, to);
  state().batches[model] = batch;
  return kSuccess;
}

}  // extern "C"
#pragma GCC visibility pop

// These are the functions that the library looks for, and of the types it takes them for.
#define FAKE_ASCENDCL_CHECK(result, name, parameters) \
  static_assert(std::is_same_v<decltype(&::name), decltype(Functions::name)>);
MSSERVING_ACL_FUNCTIONS(FAKE_ASCENDCL_CHECK)
MSSERVING_ACL_OPTIONAL_FUNCTIONS(FAKE_ASCENDCL_CHECK)
