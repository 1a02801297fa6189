// TLS for both front-ends, and for what connects out, on OpenSSL.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/error.h"
#include "net/event_loop.h"

struct ssl_ctx_st;
struct ssl_st;

namespace msserving {

struct TlsOptions {
  std::string certificate_file;  // PEM: the own certificate, then those of its chain in order; a client may have none
  std::string private_key_file;  // PEM, not encrypted
  std::string custom_ca_file;    // PEM; needed when verify_client
  bool verify_client = false;
  bool http2 = false;  // ALPN: "h2" and nothing else if true; "http/1.1" or no ALPN if not
  // Not empty: this is the client's side. The server must show a certificate for this host name or address that
  // custom_ca_file, or the system's authorities if there is none, has signed.
  std::string server_name;
};

// TLS 1.2 and 1.3 only, with the files as they were when last looked at. Shared by all loops; any thread. The lock is
// held while a session is made or a new context put in place, never while files are read.
class TlsContext {
 public:
  // How often the files are looked at. New ones are used once they have stayed the same for as long again, so that a
  // certificate and its key may be replaced one after the other.
  static constexpr int64_t kRefreshNs = 2 * kNanosPerSecond;

  // Errors name the file and the reason: not there, no PEM, encrypted, expired, not yet valid, chain out of order, key
  // of another certificate.
  static Status Create(const TlsOptions& options, std::shared_ptr<TlsContext>* context);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;

  // For one more connection; null if there is no memory. Existing ones keep the files they began with.
  ssl_st* NewSession() const;

  bool is_client() const { return !options_.server_name.empty(); }

  // Looks at the files (device, inode, size, time of change) and loads them if they are new. Files that cannot be used
  // are logged once, and the old ones are kept. Returns at once if it was called less than kRefreshNs ago, or runs.
  void Refresh(int64_t now_ns);

 private:
  explicit TlsContext(TlsOptions options) : options_(std::move(options)) {}
  std::string LookAtFiles() const;

  const TlsOptions options_;
  mutable std::mutex mutex_;
  ssl_ctx_st* current_ = nullptr;  // guarded by mutex_
  std::atomic<bool> refreshing_{false};
  // Of whoever holds refreshing_.
  int64_t refreshed_ns_ = 0;
  std::string loaded_;  // how the files looked that were loaded or found unusable
  std::string seen_;    // how they looked the last time
};

// Calls Refresh() now and then, on the loop's thread. `tls` may be null.
class TlsRefresher {
 public:
  TlsRefresher(EventLoop* loop, std::shared_ptr<TlsContext> tls);
  TlsRefresher(const TlsRefresher&) = delete;
  ~TlsRefresher() { loop_.CancelTimer(timer_); }

 private:
  void Schedule();

  EventLoop& loop_;
  std::shared_ptr<TlsContext> tls_;
  TimerId timer_ = 0;
};

}  // namespace msserving
