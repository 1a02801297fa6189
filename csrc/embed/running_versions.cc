#include "embed/running_versions.h"

#include <sys/stat.h>

#include <simdjson.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "base/clock.h"
#include "base/log_event.h"
#include "embed/error.h"

namespace msserving::embed {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPollNs = 100 * kNanosPerMilli;

std::vector<fs::path> FilesIn(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator entries(directory, fs::directory_options::skip_permission_denied, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    files.push_back(entries->path());
  }
  return files;
}

Fingerprint FingerprintOf(const std::vector<fs::path>& files) {
  Fingerprint found;
  for (const fs::path& file : files) {
    struct stat status {};
    if (stat(file.c_str(), &status) == 0) {
      found.emplace_back(file.string(), static_cast<uint64_t>(status.st_size),
                         status.st_mtim.tv_sec * kNanosPerSecond + status.st_mtim.tv_nsec);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// Of the servable_config.py and everything in the version's directory.
Fingerprint FingerprintOfVersion(const ServablePlan& plan) {
  std::vector<fs::path> files = FilesIn(*plan.version_directory);
  files.push_back(plan.config_file());
  return FingerprintOf(files);
}

bool FollowsNewest(const ServablePlan& plan) {
  return std::any_of(plan.configs.begin(), plan.configs.end(),
                     [](const StartConfig& config) { return config.version_number == 0; });
}

void MakeLogDirectory(const fs::path& directory) {
  std::error_code error;
  fs::create_directory(directory, error);
  if (error || !fs::is_directory(directory, error)) {
    ThrowFailed("The log directory '" + directory.string() +
                "' cannot be made: " + (error ? error.message() : "there is something else of that name"));
  }
}

}  // namespace

void RunningVersions::Start(const std::vector<StartConfig>& configs,
                            const std::function<std::vector<std::string>()>& command, const Interrupted& interrupted) {
  const std::vector<ServablePlan> plans = PlanServables(configs, log_directory_);
  for (const ServablePlan& plan : plans) {
    CheckNew(plan);
  }
  command_ = command();
  StartPlans(plans, started_, interrupted);
  started_ = true;
}

void RunningVersions::Stop(const std::string& name, uint64_t version, int64_t drain_ns) {
  std::string others;
  Key key{name, version};
  for (const auto& [known, running] : running_) {
    if (known.first == name) {
      others.append(others.empty() ? "" : ", ").append(std::to_string(known.second));
      key.second = version == 0 ? known.second : version;  // in ascending order
    }
  }
  if (running_.count(key) == 0) {
    ThrowInvalid("Servable '" + name + "'" + (version == 0 ? "" : " version " + std::to_string(version)) +
                 " is not running" + (others.empty() ? "" : ": its versions " + others + " are"));
  }
  Leave(key, drain_ns);
}

void RunningVersions::Reload(int64_t drain_ns, bool settled,
                             const std::function<void(const std::string&, uint64_t)>& loaded,
                             const Interrupted& interrupted) {
  std::string failures;
  std::vector<Key> keys;
  for (const auto& [key, running] : running_) {
    if (FollowsNewest(running.plan)) {
      keys.push_back(key);
    }
  }
  for (const Key& key : keys) {
    try {
      ServablePlan plan;
      if (FindNewest(running_.at(key), settled, &plan)) {
        Replace(key, plan, drain_ns, interrupted);
        loaded(plan.name, plan.version);
      }
    } catch (const EmbedError& error) {
      interrupted("Loading a new version");
      failures.append(failures.empty() ? "" : "\n").append(error.what());
    }
  }
  if (!failures.empty()) {
    ThrowFailed(failures);
  }
}

void RunningVersions::CheckNew(const ServablePlan& plan) const {
  if (running_.count({plan.name, plan.version}) != 0) {
    ThrowInvalid("start_servables has been called already and is running " + plan.title() +
                 ": call stop() before starting again, or stop_servable('" + plan.name + "', " +
                 std::to_string(plan.version) + ")");
  }
  for (const auto& [key, other] : running_) {
    if (other.plan.name == plan.name && other.plan.directory != plan.directory) {
      ThrowInvalid("The directory of servable '" + plan.name + "' differs from that of the running version " +
                   std::to_string(other.plan.version) + ": '" + plan.directory.string() + "' and '" +
                   other.plan.directory.string() + "'. One name stands for one directory");
    }
  }
}

void RunningVersions::StartPlans(const std::vector<ServablePlan>& plans, bool later, const Interrupted& interrupted) {
  MakeLogDirectory(log_directory_);
  std::vector<Running> added;
  try {
    std::vector<uint64_t> numbers;
    for (const ServablePlan& plan : plans) {
      ServableSpec spec;
      spec.name = plan.name;
      spec.version = plan.version;
      spec.workers = plan.workers;
      spec.command = command_;
      spec.environment = {{"PYTHONUNBUFFERED", "1"}};  // what user code prints is in the log when the worker dies
      spec.joins_later = later;
      spec.key = plan.configs.front().dec_key;
      Running running{plan, 0, FingerprintOf({plan.config_file()})};
      running.number = server_->AddServable(std::move(spec));
      numbers.push_back(running.number);
      added.push_back(std::move(running));
    }
    WaitReady(numbers, interrupted);
  } catch (...) {
    TakeBack(added);
    throw;
  }
  for (Running& version : added) {
    const Key key{version.plan.name, version.plan.version};
    running_[key] = std::move(version);
  }
}

void RunningVersions::WaitReady(const std::vector<uint64_t>& numbers, const Interrupted& interrupted) {
  for (;;) {
    std::string error;
    const Supervisor::Progress progress = server_->supervisor().WaitReady(numbers, kPollNs, &error);
    interrupted("Starting the servables");
    if (progress == Supervisor::Progress::kReady) {
      return;
    }
    if (progress == Supervisor::Progress::kFailed) {
      ThrowFailed(error.empty() ? "the worker failed without saying why" : error);
    }
  }
}

void RunningVersions::TakeBack(const std::vector<Running>& versions) {
  for (const Running& version : versions) {
    server_->supervisor().Retire(version.number, 0);
  }
  try {
    for (const Running& version : versions) {
      while (!server_->supervisor().WaitGone(version.number, kPollNs)) {
        stopping_("Taking back what was started");
      }
    }
  } catch (const EmbedError&) {  // the server ends them; the caller is told the first reason
  }
}

void RunningVersions::Leave(const Key& key, int64_t drain_ns) {
  const auto node = running_.extract(key);
  const Running& version = node.mapped();
  server_->supervisor().Retire(version.number, drain_ns);
  while (!server_->supervisor().WaitGone(version.number, kPollNs)) {
    stopping_("Stopping " + version.plan.title());
  }
}

bool RunningVersions::FindNewest(const Running& old, bool settled, ServablePlan* plan) {
  *plan = PlanNewest(old.plan, log_directory_);
  if (plan->version <= old.plan.version || !plan->version_directory.has_value()) {
    return false;
  }
  const Key key{plan->name, plan->version};
  if (running_.count(key) != 0) {
    return true;  // started by its number meanwhile
  }
  if (settled) {
    Fingerprint now = FingerprintOfVersion(*plan);
    const auto failed = failed_.find(key);
    const auto before = seen_.find(key);
    const bool same = before != seen_.end() && before->second == now;
    const bool hopeless = failed != failed_.end() && failed->second == now;
    seen_[key] = std::move(now);
    if (!same || hopeless) {
      return false;
    }
  }
  const std::vector<std::string> missing = MissingFiles(old, *plan);
  if (missing.empty()) {
    return true;
  }
  if (!settled) {
    std::string names;
    for (const std::string& name : missing) {
      names.append(names.empty() ? "" : " ").append(name);
    }
    LogEvent(LogLevel::kWarning, "version_incomplete")
        .With("servable", plan->name)
        .With("version", plan->version)
        .With("missing", names);
  }
  return false;
}

// Files of the running version's models that the new directory lacks. With another servable_config.py than that version
// was loaded with, nobody but the worker can know what is needed.
std::vector<std::string> RunningVersions::MissingFiles(const Running& old, const ServablePlan& plan) const {
  if (FingerprintOf({plan.config_file()}) != old.config_file) {
    return {};
  }
  std::set<std::string> names;
  for (const fs::path& file : FilesIn(*plan.version_directory)) {
    names.insert(file.filename().string());
  }
  std::vector<std::string> missing;
  simdjson::dom::parser parser;
  simdjson::dom::array models;
  const std::string description = server_->supervisor().Describe(old.number);
  if (parser.parse(description)["models"].get_array().get(models) == simdjson::SUCCESS) {
    for (const simdjson::dom::element model : models) {
      std::string_view file;
      if (model["file"].get_string().get(file) == simdjson::SUCCESS && names.count(std::string(file)) == 0) {
        missing.emplace_back(file);
      }
    }
  }
  return missing;
}

void RunningVersions::Replace(const Key& key, const ServablePlan& plan, int64_t drain_ns,
                              const Interrupted& interrupted) {
  const Key new_key{plan.name, plan.version};
  if (const auto running = running_.find(new_key); running != running_.end()) {
    std::vector<StartConfig>& configs = running->second.plan.configs;
    configs.insert(configs.end(), plan.configs.begin(), plan.configs.end());
  } else {
    const Fingerprint as_loaded = FingerprintOfVersion(plan);
    try {
      StartPlans({plan}, true, interrupted);
    } catch (const EmbedError&) {
      failed_[new_key] = as_loaded;
      throw;
    }
  }
  failed_.erase(new_key);
  seen_.erase(new_key);
  Running& old = running_.at(key);
  std::vector<StartConfig> pinned;
  std::copy_if(old.plan.configs.begin(), old.plan.configs.end(), std::back_inserter(pinned),
               [](const StartConfig& config) { return config.version_number != 0; });
  if (pinned.empty()) {
    Leave(key, drain_ns);
  } else {
    old.plan.configs = std::move(pinned);
  }
}

}  // namespace msserving::embed
