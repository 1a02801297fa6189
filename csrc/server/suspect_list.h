// Remembers which inputs were being run when a worker died, so that the same inputs cannot take one worker down after
// the other, whoever sends them and however often.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tensor/tensor_view.h"

namespace msserving {

struct SuspectOptions {
  uint32_t max_deaths = 3;                      // that many workers died on it: it is refused
  int64_t remember_ns = 600 * kNanosPerSecond;  // after its last death
  size_t max_suspects = 1024;  // beyond it the one with the fewest deaths is forgotten, of these the oldest
};

// A method and one instance's inputs, hashed with a key that no client knows.
struct Fingerprint {
  std::array<uint64_t, 2> words{};
  bool operator==(const Fingerprint&) const = default;
};

// What is remembered of one instance; no deaths: nothing.
struct Suspicion {
  Fingerprint fingerprint;
  uint32_t deaths = 0;
};

// Any thread. empty() is one load; everything else takes a lock, is O(suspects), and happens only after a death.
class SuspectList {
 public:
  explicit SuspectList(SuspectOptions options = {}, const Clock& clock = RealClock());

  bool empty() const { return size_.load(std::memory_order_relaxed) == 0; }

  // `scope` names servable, version and method.
  Fingerprint FingerprintOf(const std::string& scope, std::span<const TensorView> inputs) const;

  // Instances of another scope or size than every suspect are not hashed.
  Suspicion Look(const std::string& scope, std::span<const TensorView> inputs);
  bool Refused(uint32_t deaths) const { return deaths >= options_.max_deaths; }

  // The worker with this number died while it ran the instance; one death counts once, whoever tells it. Returns the
  // number of deaths.
  uint32_t AddDeath(const std::string& scope, std::span<const TensorView> inputs, const Fingerprint& fingerprint,
                    uint64_t worker);
  // It was run and answered: it is no suspect any more.
  void Clear(const Fingerprint& fingerprint);

 private:
  struct Suspect {
    Fingerprint fingerprint;
    uint64_t scope;                 // hash
    uint64_t bytes;                 // of all inputs
    std::vector<uint64_t> workers;  // that died, at most max_deaths
    int64_t last_ns;

    uint32_t deaths() const { return static_cast<uint32_t>(workers.size()); }
  };

  void Forget(int64_t now_ns);  // what is too old; under the lock
  void MakeRoom();              // under the lock

  const SuspectOptions options_;
  const Clock& clock_;
  std::array<uint8_t, 32> key_;
  std::atomic<size_t> size_{0};
  std::mutex mutex_;  // guards suspects_
  std::vector<Suspect> suspects_;
};

}  // namespace msserving
