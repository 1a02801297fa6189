// TLS for both front-ends, on OpenSSL.
#pragma once

#include <memory>
#include <string>

#include "base/error.h"

namespace msserving {

struct TlsOptions {
  std::string certificate_file;  // PEM, the chain
  std::string private_key_file;  // PEM
  std::string custom_ca_file;    // PEM; needed when verify_client
  bool verify_client = false;
  bool http2 = false;  // ALPN: "h2" if true, "http/1.1" if not
};

// An SSL_CTX with TLS 1.2 and 1.3 only. Immutable; shared by all loops.
class TlsContext {
 public:
  // Errors name the file and OpenSSL's reason.
  static Status Create(const TlsOptions& options, std::shared_ptr<TlsContext>* context);
  ~TlsContext();
  void* native() const { return context_; }  // SSL_CTX*

 private:
  TlsContext() = default;
  void* context_ = nullptr;
};

}  // namespace msserving
