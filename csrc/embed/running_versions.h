// The servable versions of an embedded server: joining, leaving, and following a servable's newest version. The Python
// package's server/_versions.py, for hosts that have no Python in them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "embed/launch_plan.h"
#include "server/server.h"

namespace msserving::embed {

// Names, sizes and times of files, to see whether something has changed. What is not there is left out.
using Fingerprint = std::vector<std::tuple<std::string, uint64_t, int64_t>>;

// One thread at a time.
class RunningVersions {
 public:
  // Called every 100 ms of a wait; throws to end it.
  using Interrupted = std::function<void(const std::string& doing)>;

  // `stopping` throws when the server is stopped or stopping. The `interrupted` of the functions below are for the wait
  // until new versions are ready, and throw at least when `stopping` does.
  RunningVersions(Server* server, std::filesystem::path log_directory, Interrupted stopping)
      : server_(server), log_directory_(std::move(log_directory)), stopping_(std::move(stopping)) {}

  // Starts versions with what `command` returns, which is asked once the configs have been checked, and waits until
  // requests reach them; takes them back if it fails.
  void Start(const std::vector<StartConfig>& configs, const std::function<std::vector<std::string>()>& command,
             const Interrupted& interrupted);
  // Takes one version out, 0 being the newest that runs, and waits until it has gone.
  void Stop(const std::string& name, uint64_t version, int64_t drain_ns);
  // Loads versions newer than those that follow the newest, and lets those leave. `settled`: only what has not changed
  // since the last call, and has not failed as it is now. `loaded` is called for each. EmbedError: at least one could
  // not be loaded; the others were.
  void Reload(int64_t drain_ns, bool settled, const std::function<void(const std::string&, uint64_t)>& loaded,
              const Interrupted& interrupted);
  bool started() const { return started_; }

 private:
  using Key = std::pair<std::string, uint64_t>;
  struct Running {
    ServablePlan plan;  // with a config whose version_number is 0 it follows the newest
    uint64_t number = 0;
    Fingerprint config_file;  // of the servable_config.py it was loaded with
  };

  void CheckNew(const ServablePlan& plan) const;
  void StartPlans(const std::vector<ServablePlan>& plans, bool later, const Interrupted& interrupted);
  void WaitReady(const std::vector<uint64_t>& numbers, const Interrupted& interrupted);
  void TakeBack(const std::vector<Running>& versions);
  void Leave(const Key& key, int64_t drain_ns);
  // True: *plan is of a newer version that is there and complete.
  bool FindNewest(const Running& old, bool settled, ServablePlan* plan);
  std::vector<std::string> MissingFiles(const Running& old, const ServablePlan& plan) const;
  void Replace(const Key& key, const ServablePlan& plan, int64_t drain_ns, const Interrupted& interrupted);

  Server* const server_;
  const std::filesystem::path log_directory_;
  const Interrupted stopping_;
  std::vector<std::string> command_;
  bool started_ = false;
  std::map<Key, Running> running_;
  std::map<Key, Fingerprint> failed_;  // what could not be loaded, as it was then
  std::map<Key, Fingerprint> seen_;    // new versions at the last look
};

}  // namespace msserving::embed
