#include "session/libraries/acl/acl_library.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace msserving::acl {
namespace {

constexpr const char* kFileName = "libascendcl.so";

// getenv() and dlerror() here: a model is loaded before any thread could change the environment, and glibc's dlerror()
// is of the calling thread.

// Where CANN's set_env.sh points to, and where its installers put it unless told otherwise.
std::vector<std::string> InstalledPlaces() {
  std::vector<std::string> places;
  for (const char* variable : {"ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"}) {
    const char* folder = std::getenv(variable);
    if (folder != nullptr && *folder != 0) places.push_back(std::string(folder) + "/lib64/" + kFileName);
  }
  for (const char* folder : {"ascend-toolkit/latest", "latest", "cann", "nnrt/latest", "nnae/latest"}) {
    places.push_back("/usr/local/Ascend/" + std::string(folder) + "/lib64/" + kFileName);
  }
  return places;
}

void* Open(const std::string& path, std::string* tried) {
  // Global: operator libraries that AscendCL opens later on look for its symbols.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    const char* reason = dlerror();
    *tried += std::string(tried->empty() ? "" : "; ") + (reason != nullptr ? reason : path.c_str());
  }
  return handle;
}

void* OpenAnywhere(const std::string& path) {
  std::string tried;
  if (void* handle = Open(path.empty() ? kFileName : path, &tried); handle != nullptr) return handle;
  if (path.empty()) {
    for (const std::string& place : InstalledPlaces()) {
      // Only what is there: the dynamic linker's word on a file that exists is what helps.
      if (std::FILE* file = std::fopen(place.c_str(), "rb"); file != nullptr) {
        std::fclose(file);
        if (void* handle = Open(place, &tried); handle != nullptr) return handle;
      }
    }
  }
  const char* search = std::getenv("LD_LIBRARY_PATH");
  throw std::runtime_error(
      "OM models run through AscendCL, and its library libascendcl.so cannot be loaded (" + tried +
      "); LD_LIBRARY_PATH is '" + (search != nullptr ? search : "") +
      "'. Install Ascend's driver and CANN, then run its set_env.sh in the shell that starts the server, or add the "
      "directory of libascendcl.so and those of the libraries that it needs to LD_LIBRARY_PATH");
}

// One line, of bounded length.
std::string Tidy(const char* text) {
  std::string tidy;
  for (; *text != 0 && tidy.size() < 1000; ++text) {
    const bool space = *text == '\n' || *text == '\r' || *text == '\t' || *text == ' ';
    if (!space) {
      tidy += *text;
    } else if (!tidy.empty() && tidy.back() != ' ') {
      tidy += ' ';
    }
  }
  while (!tidy.empty() && tidy.back() == ' ') tidy.pop_back();
  return tidy;
}

}  // namespace

AclLibrary& AclLibrary::Get(const std::string& path) {
  static std::mutex mutex;
  static auto* libraries = new std::map<std::string, std::unique_ptr<AclLibrary>>();
  std::lock_guard<std::mutex> lock(mutex);
  auto& library = (*libraries)[path];
  if (library == nullptr) library.reset(new AclLibrary(OpenAnywhere(path), path));
  return *library;
}

AclLibrary::AclLibrary(void* handle, const std::string& path) {
  const auto find = [&](const char* name, bool optional) {
    void* symbol = dlsym(handle, name);
    if (symbol == nullptr && !optional) {
      throw std::runtime_error("the AscendCL library " + (path.empty() ? kFileName : path) + " has no function " +
                               name + "(): it is of a CANN release that this package does not know, or damaged");
    }
    return symbol;
  };
#define MSSERVING_ACL_FIND(result, name, parameters) \
  functions_.name = reinterpret_cast<decltype(functions_.name)>(find(#name, false));
  MSSERVING_ACL_FUNCTIONS(MSSERVING_ACL_FIND)
#undef MSSERVING_ACL_FIND
#define MSSERVING_ACL_FIND(result, name, parameters) \
  functions_.name = reinterpret_cast<decltype(functions_.name)>(find(#name, true));
  MSSERVING_ACL_OPTIONAL_FUNCTIONS(MSSERVING_ACL_FIND)
#undef MSSERVING_ACL_FIND
}

std::string AclLibrary::Explain(const char* function, const std::string& what) const {
  std::string text = std::string(function) + "() " + what;
  const char* recent = functions_.aclGetRecentErrMsg != nullptr ? functions_.aclGetRecentErrMsg() : nullptr;
  if (recent != nullptr && *recent != 0) text += ": " + Tidy(recent);
  return text;
}

void AclLibrary::Check(const char* function, Error code) const {
  if (code != kSuccess) throw AclFailure(Explain(function, "failed with error " + std::to_string(code)));
}

void AclLibrary::Report(const char* function, Error code) const noexcept {
  if (code == kSuccess) return;
  try {
    const std::string text = Explain(function, "failed with error " + std::to_string(code));
    std::fprintf(stderr, "acl session library: while a session is closed, %s\n", text.c_str());
  } catch (const std::exception&) {
    std::fprintf(stderr, "acl session library: %s() failed with error %d\n", function, code);
  }
}

void AclLibrary::Initialise() {
  if (initialised_) return;
  const Error code = functions_.aclInit(nullptr);
  foreign_ = code == kRepeatInitialize;
  if (!foreign_) Check("aclInit", code);
  initialised_ = true;
}

void AclLibrary::AcquireDevice(int32_t device) {
  std::lock_guard<std::mutex> lock(mutex_);
  Initialise();
  size_t& sessions = sessions_[device];
  if (sessions == 0) {
    const Error code = functions_.aclrtSetDevice(device);
    if (code != kSuccess) {
      std::string text = Explain("aclrtSetDevice", "failed with error " + std::to_string(code));
      uint32_t count = 0;
      if (functions_.aclrtGetDeviceCount(&count) == kSuccess) {
        text += "; devices here: " + std::to_string(count);
      }
      sessions_.erase(device);
      FinaliseIfUnused();
      throw AclFailure("device " + std::to_string(device) + " cannot be used: " + text);
    }
  }
  ++sessions;
}

void AclLibrary::ReleaseDevice(int32_t device) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = sessions_.find(device);
  if (found == sessions_.end() || --found->second > 0) return;
  sessions_.erase(found);
  // What somebody else has set up may be in use: it is theirs to take down.
  if (!foreign_) Report("aclrtResetDevice", functions_.aclrtResetDevice(device));
  FinaliseIfUnused();
}

void AclLibrary::FinaliseIfUnused() noexcept {
  if (!sessions_.empty() || !initialised_) return;
  if (!foreign_) Report("aclFinalize", functions_.aclFinalize());
  initialised_ = false;
}

DeviceContext::DeviceContext(AclLibrary* library, int32_t device) : library_(library) {
  library->AcquireDevice(device);
  device_ = Owned<int32_t>(device, [library](int32_t id) { library->ReleaseDevice(id); });
  const AclLibrary& acl = *library;
  RunMode mode = kOnHost;
  acl.Check("aclrtGetRunMode", acl->aclrtGetRunMode(&mode));
  on_device_ = mode == kOnDevice;
  Context context = nullptr;
  acl.Check("aclrtCreateContext", acl->aclrtCreateContext(&context, device));
  context_ = Owned<Context>(context, [library](Context made) {
    library->Report("aclrtDestroyContext", (*library)->aclrtDestroyContext(made));
  });
  MakeCurrent();
}

void DeviceContext::MakeCurrent() const {
  library_->Check("aclrtSetCurrentContext", (*library_)->aclrtSetCurrentContext(context_.get()));
}

}  // namespace msserving::acl
