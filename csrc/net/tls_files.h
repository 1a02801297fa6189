// A server's certificate, key and authorities, from PEM files into an SSL_CTX. Internal to tls.
#pragma once

#include <string>

#include "base/error.h"

struct ssl_ctx_st;

namespace msserving {

// OpenSSL's last word on this thread's last failure; clears it.
std::string TlsReason();

// The first certificate of the file is the server's own; it and the rest must be in order and valid now.
Status UseCertificateFile(ssl_ctx_st* context, const std::string& file);
// Must belong to the certificate, which comes first. The file's bytes are wiped from memory.
Status UsePrivateKeyFile(ssl_ctx_st* context, const std::string& file, const std::string& certificate_file);
// Who may sign clients' certificates.
Status UseAuthoritiesFile(ssl_ctx_st* context, const std::string& file);

}  // namespace msserving
