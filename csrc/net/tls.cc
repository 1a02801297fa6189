#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "net/tls_files.h"

namespace msserving {
namespace {

// Forward secrecy and authenticated encryption only, for TLS 1.2; 1.3 has nothing else.
constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

// ALPN's wire form: a length byte before each name.
constexpr std::string_view kHttp2 = "\x02h2";
constexpr std::string_view kHttp1 = "\x08http/1.1";

struct FreeContext {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using ContextPtr = std::unique_ptr<SSL_CTX, FreeContext>;

int ChooseProtocol(SSL*, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered,
                   unsigned int offered_size, void* ours) {
  const auto* wanted = static_cast<const std::string_view*>(ours);
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, chosen_size, reinterpret_cast<const unsigned char*>(wanted->data()),
                            static_cast<unsigned int>(wanted->size()), offered,
                            offered_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *chosen = selected;
  return SSL_TLSEXT_ERR_OK;
}

// HTTP/2 over TLS is chosen by ALPN: a client that offers nothing means something else.
int DemandProtocol(SSL* ssl, int* alert, void*) {
  const unsigned char* offered = nullptr;
  size_t size = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &offered, &size) == 1) {
    return SSL_CLIENT_HELLO_SUCCESS;
  }
  *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
  return SSL_CLIENT_HELLO_ERROR;
}

// Whom a client talks to is checked by each connection (NewSession).
Status MakeClientContext(const TlsOptions& options, ContextPtr* made) {
  ERR_clear_error();
  ContextPtr context(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* native = context.get();
  if (native == nullptr || SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION) != 1 ||
      SSL_CTX_set_cipher_list(native, kCiphers) != 1) {
    return {ErrorKind::kInternal, "Cannot set up TLS: " + TlsReason()};
  }
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(native, 1);
  SSL_CTX_set_verify(native, SSL_VERIFY_PEER, nullptr);
  Status status;
  if (!options.certificate_file.empty()) {
    status = UseCertificateFile(native, options.certificate_file);
    if (status.ok()) {
      status = UsePrivateKeyFile(native, options.private_key_file, options.certificate_file);
    }
  }
  if (status.ok()) {
    if (!options.custom_ca_file.empty()) {
      status = UseAuthoritiesFile(native, options.custom_ca_file);
    } else if (SSL_CTX_set_default_verify_paths(native) != 1) {
      status = {ErrorKind::kInternal, "Cannot read the system's certificate authorities: " + TlsReason()};
    }
  }
  if (status.ok()) {
    *made = std::move(context);
  }
  return status;
}

Status MakeContext(const TlsOptions& options, ContextPtr* made) {
  if (!options.server_name.empty()) {
    return MakeClientContext(options, made);
  }
  ERR_clear_error();
  ContextPtr context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX* native = context.get();
  if (native == nullptr) {
    return {ErrorKind::kInternal, "Cannot set up TLS: " + TlsReason()};
  }
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(native, 1);
  // Sessions are resumed by ticket; nothing is kept here. With client certificates a context id is compulsory.
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  constexpr unsigned char kContextId[] = "msserving";
  SSL_CTX_set_session_id_context(native, kContextId, sizeof(kContextId) - 1);
  if (SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION) != 1 || SSL_CTX_set_cipher_list(native, kCiphers) != 1) {
    return {ErrorKind::kInternal, "Cannot set up TLS: " + TlsReason()};
  }
  Status status = UseCertificateFile(native, options.certificate_file);
  if (status.ok()) {
    status = UsePrivateKeyFile(native, options.private_key_file, options.certificate_file);
  }
  if (status.ok() && options.verify_client && options.custom_ca_file.empty()) {
    status = {ErrorKind::kInvalidInput, "custom_ca is needed to verify the client's certificate"};
  }
  if (status.ok() && !options.custom_ca_file.empty()) {
    status = UseAuthoritiesFile(native, options.custom_ca_file);
  }
  if (!status.ok()) {
    return status;
  }
  if (options.verify_client) {
    SSL_CTX_set_verify(native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  SSL_CTX_set_alpn_select_cb(native, &ChooseProtocol, const_cast<std::string_view*>(options.http2 ? &kHttp2 : &kHttp1));
  if (options.http2) {
    SSL_CTX_set_client_hello_cb(native, &DemandProtocol, nullptr);
  }
  *made = std::move(context);
  return Status::Ok();
}

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(current_); }

Status TlsContext::Create(const TlsOptions& options, std::shared_ptr<TlsContext>* context) {
  TlsOptions named = options;
  for (std::string* file : {&named.certificate_file, &named.private_key_file, &named.custom_ca_file}) {
    std::error_code failed;  // they are looked at again, wherever the process has gone meanwhile
    if (const auto absolute = std::filesystem::absolute(*file, failed); !file->empty() && !failed) {
      *file = absolute.string();
    }
  }
  std::shared_ptr<TlsContext> made(new TlsContext(named));
  made->loaded_ = made->seen_ = made->LookAtFiles();
  ContextPtr first;
  if (Status status = MakeContext(named, &first); !status.ok()) {
    return status;
  }
  made->current_ = first.release();
  *context = std::move(made);
  return Status::Ok();
}

SSL* TlsContext::NewSession() const {
  SSL* session = nullptr;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    session = SSL_new(current_);
  }
  if (session == nullptr || !is_client()) {
    return session;
  }
  // An address is looked for among a certificate's addresses, and is no name to be told to the server.
  const char* name = options_.server_name.c_str();
  if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), name) != 1 &&
      (SSL_set1_host(session, name) != 1 || SSL_set_tlsext_host_name(session, name) != 1)) {
    SSL_free(session);
    return nullptr;
  }
  ERR_clear_error();
  return session;
}

std::string TlsContext::LookAtFiles() const {
  std::string look;
  for (const std::string* file : {&options_.certificate_file, &options_.private_key_file, &options_.custom_ca_file}) {
    struct stat about {};
    if (!file->empty() && stat(file->c_str(), &about) == 0) {
      for (const auto part :
           {static_cast<int64_t>(about.st_dev), static_cast<int64_t>(about.st_ino), static_cast<int64_t>(about.st_size),
            static_cast<int64_t>(about.st_mtim.tv_sec), static_cast<int64_t>(about.st_mtim.tv_nsec)}) {
        look += std::to_string(part) + " ";
      }
    }
    look += "; ";
  }
  return look;
}

void TlsContext::Refresh(int64_t now_ns) {
  if (refreshing_.exchange(true, std::memory_order_acquire)) {
    return;
  }
  if (now_ns - refreshed_ns_ >= kRefreshNs) {
    refreshed_ns_ = now_ns;
    std::string look = LookAtFiles();
    const bool settled = look == seen_;
    seen_ = std::move(look);
    if (settled && seen_ != loaded_) {
      loaded_ = seen_;  // also if they cannot be used: one attempt, one line
      ContextPtr fresh;
      if (const Status status = MakeContext(options_, &fresh); !status.ok()) {
        MSSERVING_LOG(kError,
                      "The TLS files have changed and cannot be used; the old ones are kept. " << status.message());
      } else {
        {
          const std::lock_guard<std::mutex> lock(mutex_);
          fresh.reset(std::exchange(current_, fresh.release()));
        }
        MSSERVING_LOG(kInfo, "The TLS files have changed: new connections use '" << options_.certificate_file << "'");
      }
    }
  }
  refreshing_.store(false, std::memory_order_release);
}

TlsRefresher::TlsRefresher(EventLoop* loop, std::shared_ptr<TlsContext> tls) : loop_(*loop), tls_(std::move(tls)) {
  if (tls_ != nullptr) {
    Schedule();
  }
}

void TlsRefresher::Schedule() {
  timer_ = loop_.AddTimer(loop_.clock().NowNs() + TlsContext::kRefreshNs, [this] {
    tls_->Refresh(loop_.now_ns());
    Schedule();
  });
}

}  // namespace msserving
