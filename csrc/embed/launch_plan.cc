#include "embed/launch_plan.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <string_view>
#include <system_error>

#include "embed/error.h"

namespace msserving::embed {
namespace {

namespace fs = std::filesystem;

// All start configs of one (name, version).
struct Merged {
  std::string name;
  uint64_t version;
  fs::path directory;
  std::optional<fs::path> version_directory;
  std::vector<int64_t> device_ids;
  int64_t num_parallel_workers;
  std::vector<StartConfig> configs;
};

// Bytes of the UTF-8 character at the beginning; 0: it is none.
size_t Utf8Length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  const size_t length = first < 0x80   ? 1
                        : first < 0xc2 ? 0
                        : first < 0xe0 ? 2
                        : first < 0xf0 ? 3
                        : first < 0xf5 ? 4
                                       : 0;
  if (length == 0 || length > text.size()) {
    return 0;
  }
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) {
      return 0;
    }
  }
  // Overlong forms, surrogates, and what is beyond the last character.
  const bool wrong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xed && byte(1) >= 0xa0) ||
                     (first == 0xf0 && byte(1) < 0x90) || (first == 0xf4 && byte(1) >= 0x90);
  return wrong ? 0 : length;
}

bool IsDirectory(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

fs::path Resolved(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::weakly_canonical(path, error);
  if (error) {
    return path.lexically_normal();
  }
  return resolved.has_filename() ? resolved : resolved.parent_path();
}

// A relative directory is looked up in the current working directory, then beside the program.
fs::path FindServableDirectory(const StartConfig& config) {
  std::error_code error;
  std::vector<fs::path> candidates{Resolved(fs::absolute(config.servable_directory, error))};
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    candidates.push_back(Resolved(program.parent_path() / config.servable_directory));
  }
  const auto found = std::find_if(candidates.begin(), candidates.end(),
                                  [&config](const fs::path& path) { return IsDirectory(path / config.servable_name); });
  const fs::path directory = found == candidates.end() ? candidates.front() : *found;
  const fs::path servable = directory / config.servable_name;
  if (!IsDirectory(directory)) {
    ThrowInvalid("Check servable config failed, directory '" + directory.string() +
                 "' given as servable_directory does not exist");
  }
  if (!IsDirectory(servable)) {
    ThrowInvalid("Check servable config failed, directory '" + servable.string() +
                 "' does not exist: servable_directory should hold a directory named '" + config.servable_name + "'");
  }
  if (const fs::path file = servable / "servable_config.py"; !fs::is_regular_file(file, error)) {
    ThrowInvalid("Check servable config failed, file '" + file.string() + "' does not exist");
  }
  return directory;
}

// The version to start and its directory; 0 asks for the newest. A servable without any version directory is version 1
// (or the one asked for) with no directory, which is enough for one that declares no model.
std::pair<uint64_t, std::optional<fs::path>> ChooseVersion(const fs::path& servable, uint64_t wanted) {
  const std::map<uint64_t, fs::path> versions = ListVersions(servable);
  const std::string name = servable.filename().string();
  std::error_code ignored;
  if (versions.empty()) {
    const fs::path path = servable / std::to_string(wanted);
    if (wanted != 0 && fs::exists(path, ignored)) {
      ThrowInvalid("The version path '" + path.string() + "' of servable '" + name + "' is not a directory");
    }
    return {std::max<uint64_t>(wanted, 1), std::nullopt};
  }
  if (wanted == 0) {
    return {versions.rbegin()->first, versions.rbegin()->second};
  }
  const auto found = versions.find(wanted);
  if (found == versions.end()) {
    std::string has;
    for (const auto& [version, path] : versions) {
      has.append(has.empty() ? "" : ", ").append(std::to_string(version));
    }
    ThrowInvalid("There is no specified version directory of servable '" + name + "': version " +
                 std::to_string(wanted) + " was asked for, '" + servable.string() + "' has " + has);
  }
  return {wanted, found->second};
}

bool SameKey(const std::shared_ptr<Secret>& a, const std::shared_ptr<Secret>& b) {
  return (a == nullptr && b == nullptr) || (a != nullptr && b != nullptr && a->text() == b->text());
}

void Merge(Merged* entry, const StartConfig& config) {
  const StartConfig& first = entry->configs.front();
  const std::string title = "servable '" + entry->name + "' version " + std::to_string(entry->version);
  if (!SameKey(config.dec_key, first.dec_key)) {
    ThrowInvalid("The dec key of " + title + " differs between its start configs");
  }
  if (config.dec_key != nullptr && config.dec_mode != first.dec_mode) {
    ThrowInvalid("The dec mode of " + title + " differs between its start configs: " + first.dec_mode + " and " +
                 config.dec_mode);
  }
  if (config.device_type != first.device_type) {
    const auto shown = [](const std::string& type) { return type.empty() ? "None" : type; };
    ThrowInvalid("The device type of " + title + " differs between its start configs: " + shown(first.device_type) +
                 " and " + shown(config.device_type));
  }
  for (const int64_t device : config.device_ids) {
    if (std::find(entry->device_ids.begin(), entry->device_ids.end(), device) == entry->device_ids.end()) {
      entry->device_ids.push_back(device);
    }
  }
  entry->num_parallel_workers = std::max(entry->num_parallel_workers, config.num_parallel_workers);
  entry->configs.push_back(config);
}

void Take(std::vector<Merged>* merged, const fs::path& directory, const StartConfig& config) {
  auto [version, version_directory] = ChooseVersion(directory / config.servable_name, config.version_number);
  for (Merged& entry : *merged) {
    if (entry.name == config.servable_name && entry.version == version) {
      return Merge(&entry, config);
    }
  }
  merged->push_back({config.servable_name,
                     version,
                     directory,
                     version_directory,
                     config.device_ids,
                     config.num_parallel_workers,
                     {config}});
}

std::string JsonOrNull(const std::string& text, bool given) { return given ? JsonText(text) : "null"; }

// `device` below 0: an extra worker.
WorkerSpec PlanWorker(const Merged& entry, int64_t device, const std::string& kind, const fs::path& log_directory) {
  const StartConfig& first = entry.configs.front();
  const size_t with_device = std::max<size_t>(entry.device_ids.size(), 1);
  const bool extras = entry.num_parallel_workers > static_cast<int64_t>(with_device);
  const bool extra = device < 0;
  const std::string version = std::to_string(entry.version);
  WorkerSpec worker;
  worker.label = entry.name + " version " + version + " " + kind;
  worker.config_json =
      "{\"servable_directory\": " + JsonText(entry.directory.string()) +
      ", \"servable_name\": " + JsonText(entry.name) + ", \"version\": " + version + ", \"version_directory\": " +
      JsonOrNull(entry.version_directory.value_or(fs::path()).string(), entry.version_directory.has_value()) +
      ", \"device_id\": " + (extra ? "null" : std::to_string(device)) +
      ", \"device_type\": " + JsonOrNull(first.device_type, !first.device_type.empty()) +
      ", \"dec_mode\": " + JsonOrNull(first.dec_mode, first.dec_key != nullptr) +
      ", \"extra\": " + (extra ? "true" : "false") + ", \"has_extra_workers\": " + (extras ? "true" : "false") + "}";
  worker.log_file = (log_directory / ("log_" + entry.name + "_" + kind + "_version" + version + ".log")).string();
  worker.extra = extra;
  return worker;
}

ServablePlan PlanOf(const Merged& entry, const fs::path& log_directory) {
  ServablePlan plan{entry.name, entry.version, {}, entry.directory, entry.version_directory, entry.configs};
  const std::vector<int64_t> devices = entry.device_ids.empty() ? std::vector<int64_t>{0} : entry.device_ids;
  for (const int64_t device : devices) {
    plan.workers.push_back(PlanWorker(entry, device, "device" + std::to_string(device), log_directory));
  }
  const int64_t extras = entry.num_parallel_workers - static_cast<int64_t>(devices.size());
  for (int64_t extra = 0; extra < extras; ++extra) {
    plan.workers.push_back(PlanWorker(entry, -1, "extra" + std::to_string(extra), log_directory));
  }
  return plan;
}

}  // namespace

std::map<uint64_t, fs::path> ListVersions(const fs::path& servable) {
  std::map<uint64_t, fs::path> versions;
  std::error_code error;
  fs::directory_iterator entries(servable, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const fs::path& path = entries->path();
    const std::string name = path.filename().string();
    uint64_t version = 0;
    const auto [end, wrong] = std::from_chars(name.data(), name.data() + name.size(), version);
    if (wrong != std::errc() || end != name.data() + name.size() || version < 1 || !IsDirectory(path)) {
      continue;
    }
    const auto known = versions.find(version);
    // Of several spellings the plain one, or else the first by name.
    if (known == versions.end() || name == std::to_string(version) ||
        (known->second.filename() != std::to_string(version) && path < known->second)) {
      versions[version] = path;
    }
  }
  if (error) {
    ThrowFailed("The directory of servable '" + servable.filename().string() + "' cannot be read: " + error.message());
  }
  return versions;
}

std::vector<ServablePlan> PlanServables(const std::vector<StartConfig>& configs, const fs::path& log_directory) {
  std::map<std::string, fs::path> directories;
  std::vector<Merged> merged;
  for (const StartConfig& config : configs) {
    const fs::path directory = FindServableDirectory(config);
    const auto [known, added] = directories.emplace(config.servable_name, directory);
    if (known->second != directory) {
      ThrowInvalid("The directory of servable '" + config.servable_name + "' differs between its start configs: '" +
                   known->second.string() + "' and '" + directory.string() + "'. One name stands for one directory");
    }
    Take(&merged, directory, config);
  }
  std::vector<ServablePlan> plans;
  for (const Merged& entry : merged) {
    plans.push_back(PlanOf(entry, log_directory));
  }
  return plans;
}

ServablePlan PlanNewest(const ServablePlan& plan, const fs::path& log_directory) {
  std::vector<Merged> merged;
  for (const StartConfig& config : plan.configs) {
    if (config.version_number == 0) {
      Take(&merged, plan.directory, config);
    }
  }
  return PlanOf(merged.front(), log_directory);
}

std::string JsonText(std::string_view text) {
  std::string json = "\"";
  const auto escape = [&json](const char* format, unsigned value) {
    char escaped[8];
    std::snprintf(escaped, sizeof(escaped), format, value);
    json.append(escaped);
  };
  while (!text.empty()) {
    const auto first = static_cast<unsigned char>(text.front());
    const size_t length = Utf8Length(text);
    if (length == 0) {
      escape("\\udc%02x", first);
    } else if (first == '"' || first == '\\') {
      json.append(1, '\\').append(1, text.front());
    } else if (first < ' ') {
      escape("\\u%04x", first);
    } else {
      json.append(text.substr(0, length));
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return json + '"';
}

}  // namespace msserving::embed
