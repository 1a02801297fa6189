// What is checked and decided before any worker process is spawned: the Python package's server/_launch.py, for hosts
// that have no Python in them. tests/python/test_embedding_words.py compares the two.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/secret.h"
#include "server/supervisor.h"

namespace msserving::embed {

// ServableStartConfig, checked.
struct StartConfig {
  std::filesystem::path servable_directory;
  std::string servable_name;
  std::vector<int64_t> device_ids;
  uint64_t version_number = 0;
  std::string device_type;  // "": none
  int64_t num_parallel_workers = 0;
  std::shared_ptr<Secret> dec_key;  // null: not encrypted
  std::string dec_mode;
};

// One version of one servable with all of its workers, and the configs that asked for it.
struct ServablePlan {
  std::string name;
  uint64_t version = 1;
  std::vector<WorkerSpec> workers;
  std::filesystem::path directory;
  std::optional<std::filesystem::path> version_directory;
  std::vector<StartConfig> configs;

  std::filesystem::path config_file() const { return directory / name / "servable_config.py"; }
  std::string title() const { return "servable '" + name + "' version " + std::to_string(version); }
};

// Checks every config against the file system and merges those of the same servable version. EmbedError: a directory,
// servable_config.py or version is missing, or two configs contradict each other.
std::vector<ServablePlan> PlanServables(const std::vector<StartConfig>& configs,
                                        const std::filesystem::path& log_directory);
// What `plan` becomes with the newest version that its directory has now, for those of its configs that ask for the
// newest. There must be one.
ServablePlan PlanNewest(const ServablePlan& plan, const std::filesystem::path& log_directory);

// The version directories of a servable: those whose name is a number of 1 or more. "1" wins over "01".
std::map<uint64_t, std::filesystem::path> ListVersions(const std::filesystem::path& servable);

// A JSON string with its quotes. Bytes that are no UTF-8 become what Python makes of them (surrogateescape).
std::string JsonText(std::string_view text);

}  // namespace msserving::embed
