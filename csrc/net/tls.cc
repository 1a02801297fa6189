#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cstring>
#include <string>
#include <string_view>

namespace msserving {
namespace {

// Forward secrecy and authenticated encryption only, for TLS 1.2; 1.3 has nothing else.
constexpr char kCiphers[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

// ALPN's wire form: a length byte before each name.
constexpr std::string_view kHttp2 = "\x02h2";
constexpr std::string_view kHttp1 = "\x08http/1.1";

std::string Reason() {
  const unsigned long error = ERR_peek_last_error();
  char text[256] = "unknown reason";
  if (error != 0) {
    ERR_error_string_n(error, text, sizeof(text));
  }
  ERR_clear_error();
  return text;
}

Status Failed(const char* what, const std::string& file) {
  return {ErrorKind::kInvalidInput, std::string("Cannot load the ") + what + " file '" + file + "': " + Reason()};
}

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

}  // namespace

TlsContext::~TlsContext() { SSL_CTX_free(static_cast<SSL_CTX*>(context_)); }

Status TlsContext::Create(const TlsOptions& options, std::shared_ptr<TlsContext>* context) {
  ERR_clear_error();
  std::shared_ptr<TlsContext> made(new TlsContext());
  SSL_CTX* native = SSL_CTX_new(TLS_server_method());
  made->context_ = native;
  if (native == nullptr) {
    return {ErrorKind::kInternal, "Cannot set up TLS: " + Reason()};
  }
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(native, 1);
  // Sessions are resumed by ticket; nothing is kept here. With client certificates a context id is compulsory.
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  constexpr unsigned char kContextId[] = "msserving";
  SSL_CTX_set_session_id_context(native, kContextId, sizeof(kContextId) - 1);
  if (SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION) != 1 || SSL_CTX_set_cipher_list(native, kCiphers) != 1) {
    return {ErrorKind::kInternal, "Cannot set up TLS: " + Reason()};
  }
  if (SSL_CTX_use_certificate_chain_file(native, options.certificate_file.c_str()) != 1) {
    return Failed("certificate", options.certificate_file);
  }
  if (SSL_CTX_use_PrivateKey_file(native, options.private_key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return Failed("private key", options.private_key_file);
  }
  if (SSL_CTX_check_private_key(native) != 1) {
    return {ErrorKind::kInvalidInput, "The private key file '" + options.private_key_file +
                                          "' does not belong to the certificate file '" + options.certificate_file +
                                          "': " + Reason()};
  }
  if (options.verify_client && options.custom_ca_file.empty()) {
    return {ErrorKind::kInvalidInput, "custom_ca is needed to verify the client's certificate"};
  }
  if (!options.custom_ca_file.empty()) {
    if (SSL_CTX_load_verify_locations(native, options.custom_ca_file.c_str(), nullptr) != 1) {
      return Failed("CA", options.custom_ca_file);
    }
    // The names told to clients, so that they know which certificate to show.
    SSL_CTX_set_client_CA_list(native, SSL_load_client_CA_file(options.custom_ca_file.c_str()));
  }
  if (options.verify_client) {
    SSL_CTX_set_verify(native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  SSL_CTX_set_alpn_select_cb(native, &ChooseProtocol, const_cast<std::string_view*>(options.http2 ? &kHttp2 : &kHttp1));
  *context = std::move(made);
  return Status::Ok();
}

}  // namespace msserving
