#include <dlfcn.h>

#include <map>
#include <mutex>

#include "session/session.h"

namespace msserving {
namespace {

constexpr size_t kErrorBytes = 4096;

Status Failed(const std::string& library, const std::string& reason) {
  return Status(ErrorKind::kInternal, "session library '" + library + "': " + reason);
}

// A table is kept for the process's life: code of a library may still run in threads of its own.
Status LoadLibrary(const std::string& path, const MsServingSessionLibrary** table) {
  static std::mutex mutex;
  static auto* loaded = new std::map<std::string, const MsServingSessionLibrary*>();
  std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = loaded->find(path); found != loaded->end()) {
    *table = found->second;
    return Status::Ok();
  }
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    return Failed(path, std::string("cannot be loaded: ") + (reason != nullptr ? reason : "unknown reason"));
  }
  const auto entry = reinterpret_cast<MsServingSessionLibraryFunction>(dlsym(handle, MS_SERVING_SESSION_ENTRY));
  if (entry == nullptr) {
    dlclose(handle);
    return Failed(path, "does not export " MS_SERVING_SESSION_ENTRY "(), so it is not a session library");
  }
  const MsServingSessionLibrary* found = entry();
  if (found == nullptr) {
    return Failed(path, MS_SERVING_SESSION_ENTRY "() returned no table");
  }
  if (found->abi_version != MS_SERVING_SESSION_ABI_VERSION) {
    return Failed(path, "was built for session ABI " + std::to_string(found->abi_version) + ", this server speaks " +
                            std::to_string(MS_SERVING_SESSION_ABI_VERSION) + "; rebuild it with this package's header");
  }
  if (found->open == nullptr || found->describe == nullptr || found->run == nullptr || found->last_error == nullptr ||
      found->close == nullptr) {
    return Failed(path, "its table lacks a function");
  }
  loaded->emplace(path, found);
  *table = found;
  return Status::Ok();
}

Status CopyInfo(const std::string& library, const char* what, const MsServingTensorInfo* from, size_t count,
                std::vector<TensorInfo>* to) {
  for (size_t i = 0; i < count; ++i) {
    const MsServingTensorInfo& source = from[i];
    if (source.rank < -1 || source.rank > kMaxRank) {
      return Failed(library, std::string(what) + " " + std::to_string(i) + " has rank " + std::to_string(source.rank));
    }
    if (source.dtype < 0 || !IsValid(static_cast<uint64_t>(source.dtype)) ||
        IsText(static_cast<DataType>(source.dtype))) {
      return Failed(library, std::string(what) + " " + std::to_string(i) + " has the unknown element type " +
                                 std::to_string(source.dtype));
    }
    TensorInfo info;
    info.name = source.name != nullptr ? source.name : "";
    info.dtype = static_cast<DataType>(source.dtype);
    info.rank = source.rank;
    for (int d = 0; d < source.rank; ++d) {
      if (source.dims[d] < -1) {
        return Failed(library, std::string(what) + " " + std::to_string(i) + " has the dimension " +
                                   std::to_string(source.dims[d]));
      }
      info.dims[static_cast<size_t>(d)] = source.dims[d];
    }
    to->push_back(std::move(info));
  }
  return Status::Ok();
}

class LibrarySession final : public Session {
 public:
  LibrarySession(const MsServingSessionLibrary* table, MsServingSession* session) : table_(table), session_(session) {}
  ~LibrarySession() override { table_->close(session_); }
  LibrarySession(const LibrarySession&) = delete;

  Status ReadDescription(const std::string& library) {
    const MsServingSessionInfo* info = table_->describe(session_);
    if (info == nullptr) {
      return Failed(library, "describe() returned nothing");
    }
    if (Status status = CopyInfo(library, "input", info->inputs, info->inputs_count, &info_.inputs); !status.ok()) {
      return status;
    }
    if (Status status = CopyInfo(library, "output", info->outputs, info->outputs_count, &info_.outputs); !status.ok()) {
      return status;
    }
    if (info_.outputs.empty()) {
      return Failed(library, "the graph has no outputs");
    }
    for (size_t i = 0; i < info->batch_sizes_count; ++i) {
      const int64_t size = info->batch_sizes[i];
      if (size < 1 || (i > 0 && size <= info->batch_sizes[i - 1])) {
        return Failed(library, "its batch sizes must be positive and ascend");
      }
      info_.batch_sizes.push_back(size);
    }
    info_.way = info->way != nullptr ? info->way : "";
    return Status::Ok();
  }

  const SessionInfo& describe() const override { return info_; }

  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    if (table_->run(session_, inputs.data(), outputs.data()) == 0) {
      return Status::Ok();
    }
    const char* reason = table_->last_error(session_);
    return Status(ErrorKind::kStageFailed, reason != nullptr && *reason != 0 ? reason : "the session gave no reason");
  }

 private:
  const MsServingSessionLibrary* table_;
  MsServingSession* session_;
  SessionInfo info_;
};

}  // namespace

Status OpenLibrarySession(const std::string& library, const SessionOptions& options,
                          std::unique_ptr<Session>* session) {
  const MsServingSessionLibrary* table = nullptr;
  if (Status status = LoadLibrary(library, &table); !status.ok()) {
    return status;
  }
  std::vector<MsServingOption> raw;
  raw.reserve(options.size());
  for (const auto& [key, value] : options) {
    raw.push_back({key.c_str(), value.c_str()});
  }
  MsServingSession* opened = nullptr;
  char error[kErrorBytes] = "";
  if (table->open(raw.data(), raw.size(), &opened, error, sizeof(error)) != 0 || opened == nullptr) {
    error[sizeof(error) - 1] = 0;
    return Failed(library, *error != 0 ? error : "open failed without a reason");
  }
  auto made = std::make_unique<LibrarySession>(table, opened);
  if (Status status = made->ReadDescription(library); !status.ok()) {
    return status;
  }
  *session = std::move(made);
  return Status::Ok();
}

}  // namespace msserving
