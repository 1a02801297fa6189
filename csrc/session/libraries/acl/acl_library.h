// libascendcl.so, opened at run time, and what a session holds of it.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "session/libraries/acl/acl_api.h"

namespace msserving::acl {

// Its text names the function that failed, its code, and what AscendCL says about it.
class AclFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Loaded once a process and never unloaded: AscendCL has threads of its own. Any thread.
class AclLibrary {
 public:
  // Loads `path`; an empty one means libascendcl.so as the dynamic linker finds it (LD_LIBRARY_PATH), then in the
  // places where CANN is installed. std::runtime_error says what was tried and what to do.
  static AclLibrary& Get(const std::string& path);

  const Functions* operator->() const { return &functions_; }

  // Throws AclFailure for a code that is not success. To be called by the thread that got the code, at once.
  void Check(const char* function, Error code) const;
  // For functions that make an object: NULL is the failure.
  template <typename T>
  T* Check(const char* function, T* made) const {
    if (made == nullptr) throw AclFailure(Explain(function, "returned no object"));
    return made;
  }
  // A failure where nothing can be done about it any more is written to stderr, which is the worker's log.
  void Report(const char* function, Error code) const noexcept;

  // AscendCL is initialised once a process, each device set up once for all sessions on it.
  void AcquireDevice(int32_t device);
  void ReleaseDevice(int32_t device) noexcept;

 private:
  explicit AclLibrary(void* handle, const std::string& path);
  std::string Explain(const char* function, const std::string& what) const;
  void Initialise();
  void FinaliseIfUnused() noexcept;

  Functions functions_;
  std::mutex mutex_;
  std::map<int32_t, size_t> sessions_;  // by device; guarded by mutex_
  bool initialised_ = false;            // guarded by mutex_
  bool foreign_ = false;                // somebody else in this process had initialised it; guarded by mutex_
};

// Something to be given back when the owner goes.
template <typename T>
class Owned {
 public:
  Owned() = default;
  Owned(T value, std::function<void(T)> release) : value_(value), release_(std::move(release)) {}
  ~Owned() { Reset(); }
  Owned(Owned&& other) noexcept : value_(other.value_), release_(std::exchange(other.release_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    Reset();
    value_ = other.value_;
    release_ = std::exchange(other.release_, nullptr);
    return *this;
  }
  T get() const { return value_; }

 private:
  void Reset() noexcept {
    if (const auto release = std::exchange(release_, nullptr)) release(value_);
  }
  T value_{};
  std::function<void(T)> release_;
};

// One session's context on a device, made current for the calling thread by the constructor. Its destructor must be
// the last of the session's: it may be the one that ends AscendCL.
class DeviceContext {
 public:
  DeviceContext(AclLibrary* library, int32_t device);
  // To be called first by a thread that is about to use anything of this session.
  void MakeCurrent() const;
  CopyKind to_device() const { return on_device_ ? kDeviceToDevice : kHostToDevice; }
  CopyKind to_host() const { return on_device_ ? kDeviceToDevice : kDeviceToHost; }

 private:
  AclLibrary* library_;
  Owned<int32_t> device_;
  Owned<Context> context_;
  bool on_device_ = false;  // this process runs on the device itself, whose memory is the host's
};

}  // namespace msserving::acl
