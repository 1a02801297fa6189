#include "server/suspect_list.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>

namespace msserving {
namespace {

uint64_t BytesOf(std::span<const TensorView> inputs) {
  uint64_t bytes = 0;
  for (const TensorView& input : inputs) {
    bytes += input.bytes;
  }
  return bytes;
}

}  // namespace

SuspectList::SuspectList(SuspectOptions options, const Clock& clock) : options_(options), clock_(clock), key_{} {
  RAND_bytes(key_.data(), static_cast<int>(key_.size()));
}

Fingerprint SuspectList::FingerprintOf(const std::string& scope, std::span<const TensorView> inputs) const {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr);
  EVP_DigestUpdate(context.get(), key_.data(), key_.size());
  EVP_DigestUpdate(context.get(), scope.c_str(), scope.size() + 1);
  for (const TensorView& input : inputs) {
    const uint64_t head[3] = {static_cast<uint64_t>(input.dtype), input.rank, input.bytes};
    EVP_DigestUpdate(context.get(), head, sizeof(head));
    EVP_DigestUpdate(context.get(), input.dims, sizeof(input.dims[0]) * input.rank);
    if (input.bytes > 0) {
      EVP_DigestUpdate(context.get(), input.data, input.bytes);
    }
  }
  uint8_t digest[EVP_MAX_MD_SIZE];
  EVP_DigestFinal_ex(context.get(), digest, nullptr);
  Fingerprint fingerprint;
  std::memcpy(fingerprint.words.data(), digest, sizeof(fingerprint.words));
  return fingerprint;
}

Suspicion SuspectList::Look(const std::string& scope, std::span<const TensorView> inputs) {
  const uint64_t scope_hash = std::hash<std::string>()(scope);
  const uint64_t bytes = BytesOf(inputs);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    Forget(clock_.NowNs());
    const bool looks_alike = std::any_of(suspects_.begin(), suspects_.end(), [&](const Suspect& suspect) {
      return suspect.bytes == bytes && suspect.scope == scope_hash;
    });
    if (!looks_alike) {
      return {};
    }
  }
  const Fingerprint found = FingerprintOf(scope, inputs);
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Suspect& suspect : suspects_) {
    if (suspect.fingerprint == found) {
      return {found, suspect.deaths()};
    }
  }
  return {};
}

uint32_t SuspectList::AddDeath(const std::string& scope, std::span<const TensorView> inputs,
                               const Fingerprint& fingerprint, uint64_t worker) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t now_ns = clock_.NowNs();
  Forget(now_ns);
  for (Suspect& suspect : suspects_) {
    if (suspect.fingerprint == fingerprint) {
      const auto& workers = suspect.workers;
      if (workers.size() < options_.max_deaths && std::find(workers.begin(), workers.end(), worker) == workers.end()) {
        suspect.workers.push_back(worker);
      }
      suspect.last_ns = now_ns;
      return suspect.deaths();
    }
  }
  if (suspects_.size() >= options_.max_suspects) {
    MakeRoom();
  }
  suspects_.push_back({fingerprint, std::hash<std::string>()(scope), BytesOf(inputs), {worker}, now_ns});
  size_.store(suspects_.size(), std::memory_order_relaxed);
  return 1;
}

void SuspectList::Clear(const Fingerprint& fingerprint) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(suspects_, [&](const Suspect& suspect) { return suspect.fingerprint == fingerprint; });
  size_.store(suspects_.size(), std::memory_order_relaxed);
}

void SuspectList::Forget(int64_t now_ns) {
  std::erase_if(suspects_, [&](const Suspect& suspect) { return now_ns - suspect.last_ns > options_.remember_ns; });
  size_.store(suspects_.size(), std::memory_order_relaxed);
}

void SuspectList::MakeRoom() {
  const auto least = std::min_element(suspects_.begin(), suspects_.end(), [](const Suspect& a, const Suspect& b) {
    return a.deaths() != b.deaths() ? a.deaths() < b.deaths() : a.last_ns < b.last_ns;
  });
  if (least != suspects_.end()) {
    suspects_.erase(least);
  }
}

}  // namespace msserving
