#include "net/tls_files.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "base/unique_fd.h"

namespace msserving {
namespace {

constexpr off_t kMaxFileBytes = 1 << 20;

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeCertificate {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using BioPtr = std::unique_ptr<BIO, FreeBio>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeKey>;
using CertificatePtr = std::unique_ptr<X509, FreeCertificate>;

// A file's bytes, wiped at the end: they may be a private key.
class SecretFile {
 public:
  ~SecretFile() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

  // "" or the reason.
  std::string Read(const std::string& file) {
    const UniqueFd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat about {};
    if (!fd || fstat(fd.get(), &about) != 0) {
      return ErrorText(errno);
    }
    if (!S_ISREG(about.st_mode) || about.st_size > kMaxFileBytes) {
      return "it is not a file of at most 1 MiB";
    }
    bytes_.resize(static_cast<size_t>(about.st_size));  // once: growing would leave copies behind
    size_t size = 0;
    while (size < bytes_.size()) {
      const ssize_t got = read(fd.get(), bytes_.data() + size, bytes_.size() - size);
      if (got < 0 && errno == EINTR) {
        continue;
      }
      if (got < 0) {
        return ErrorText(errno);
      }
      if (got == 0) {
        break;
      }
      size += static_cast<size_t>(got);
    }
    size_ = size;
    return {};
  }

  BioPtr Open() const { return BioPtr(BIO_new_mem_buf(bytes_.data(), static_cast<int>(size_))); }

 private:
  static std::string ErrorText(int error) {
    char buffer[128];
    return strerror_r(error, buffer, sizeof(buffer));
  }

  std::vector<char> bytes_;
  size_t size_ = 0;
};

Status Failed(const char* what, const std::string& file, const std::string& reason) {
  return {ErrorKind::kInvalidInput, std::string("Cannot load the ") + what + " file '" + file + "': " + reason};
}

// Instead of OpenSSL's, which would ask on the terminal.
int NoPassword(char*, int, int, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

std::string TimeText(const ASN1_TIME* time) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  char text[64];
  if (bio == nullptr || ASN1_TIME_print(bio.get(), time) != 1) {
    return "an unknown time";
  }
  const int size = BIO_read(bio.get(), text, sizeof(text));
  return size > 0 ? std::string(text, static_cast<size_t>(size)) : "an unknown time";
}

std::string CheckValidNow(const X509* certificate, size_t number) {
  const std::string which = number == 1 ? std::string("the certificate") : "certificate " + std::to_string(number);
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    return which + " has expired, it was valid until " + TimeText(X509_get0_notAfter(certificate));
  }
  if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0) {
    return which + " is not yet valid, it will be from " + TimeText(X509_get0_notBefore(certificate));
  }
  return {};
}

bool AtPemEnd() {
  const unsigned long error = ERR_peek_last_error();
  return ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
}

}  // namespace

std::string TlsReason() {
  const unsigned long error = ERR_peek_last_error();
  char text[256] = "unknown reason";
  if (error != 0) {
    ERR_error_string_n(error, text, sizeof(text));
  }
  ERR_clear_error();
  return text;
}

Status UseCertificateFile(SSL_CTX* context, const std::string& file) {
  SecretFile bytes;
  if (const std::string reason = bytes.Read(file); !reason.empty()) {
    return Failed("certificate", file, reason);
  }
  const BioPtr bio = bytes.Open();
  std::vector<CertificatePtr> chain;
  ERR_clear_error();
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    chain.emplace_back(certificate);
  }
  if (!AtPemEnd()) {
    return Failed("certificate", file, TlsReason());
  }
  ERR_clear_error();
  if (chain.empty()) {
    return Failed("certificate", file, "there is no certificate in it, which begins with -----BEGIN CERTIFICATE-----");
  }
  for (size_t i = 0; i < chain.size(); ++i) {
    if (const std::string reason = CheckValidNow(chain[i].get(), i + 1); !reason.empty()) {
      return Failed("certificate", file, reason);
    }
    if (i > 0 && X509_check_issued(chain[i].get(), chain[i - 1].get()) != X509_V_OK) {
      return Failed("certificate", file,
                    "its chain is out of order, certificate " + std::to_string(i + 1) +
                        " is not the issuer of number " + std::to_string(i) +
                        "; the server's own comes first, then each one's issuer");
    }
  }
  if (SSL_CTX_use_certificate(context, chain[0].get()) != 1) {
    return Failed("certificate", file, TlsReason());
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context, chain[i].get()) != 1) {
      return Failed("certificate", file, TlsReason());
    }
  }
  return Status::Ok();
}

Status UsePrivateKeyFile(SSL_CTX* context, const std::string& file, const std::string& certificate_file) {
  SecretFile bytes;
  if (const std::string reason = bytes.Read(file); !reason.empty()) {
    return Failed("private key", file, reason);
  }
  bool encrypted = false;
  ERR_clear_error();
  const KeyPtr key(PEM_read_bio_PrivateKey(bytes.Open().get(), nullptr, &NoPassword, &encrypted));
  if (key == nullptr) {
    const std::string reason = TlsReason();
    return Failed(
        "private key", file,
        encrypted ? std::string("it is encrypted, which is not supported") : reason + ", no private key in PEM");
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return {ErrorKind::kInvalidInput, "The private key file '" + file + "' does not belong to the certificate file '" +
                                          certificate_file +
                                          "', or its first certificate is not the server's own: " + TlsReason()};
  }
  return Status::Ok();
}

Status UseAuthoritiesFile(SSL_CTX* context, const std::string& file) {
  SecretFile bytes;
  if (const std::string reason = bytes.Read(file); !reason.empty()) {
    return Failed("CA", file, reason);
  }
  ERR_clear_error();
  const BioPtr bio = bytes.Open();
  size_t count = 0;
  for (; X509* authority = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr); ++count) {
    const CertificatePtr owner(authority);
    // The names are told to clients, so that they know which certificate to show.
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context), authority) != 1 ||
        SSL_CTX_add_client_CA(context, authority) != 1) {
      return Failed("CA", file, TlsReason());
    }
  }
  if (!AtPemEnd()) {
    return Failed("CA", file, TlsReason());
  }
  ERR_clear_error();
  return count > 0 ? Status::Ok() : Failed("CA", file, "there is no certificate in it");
}

}  // namespace msserving
