// Certificates for tests, made anew each time: one authority, and what it signs.
#pragma once

#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>

namespace msserving::testing {

// A folder with NAME.pem and NAME.key for every name that is issued; removed at the end.
class TestCertificates {
 public:
  TestCertificates() {
    char name[] = "/tmp/msserving_tls_XXXXXX";
    EXPECT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    Issue("ca");
  }
  TestCertificates(const TestCertificates&) = delete;
  ~TestCertificates() {
    X509_free(authority_);
    EVP_PKEY_free(authority_key_);
    std::filesystem::remove_all(folder_);
  }

  // The first one is the authority, signed by itself. `address`: of the server that it is for.
  void Issue(const std::string& name, long valid_from_s = -3600, long valid_until_s = 3600,
             const std::string& address = "") {
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = X509_new();
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial_);
    X509_gmtime_adj(X509_getm_notBefore(certificate), valid_from_s);
    X509_gmtime_adj(X509_getm_notAfter(certificate), valid_until_s);
    X509_set_pubkey(certificate, key);
    X509_NAME* subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    const bool first = authority_ == nullptr;
    X509_set_issuer_name(certificate, first ? subject : X509_get_subject_name(authority_));
    if (first) {
      X509_EXTENSION* is_authority =
          X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, const_cast<char*>("critical,CA:TRUE"));
      X509_add_ext(certificate, is_authority, -1);
      X509_EXTENSION_free(is_authority);
    }
    if (!address.empty()) {
      X509_EXTENSION* names = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, ("IP:" + address).c_str());
      X509_add_ext(certificate, names, -1);
      X509_EXTENSION_free(names);
    }
    EXPECT_NE(X509_sign(certificate, first ? key : authority_key_, EVP_sha256()), 0);
    FILE* file = std::fopen(Pem(name).c_str(), "w");
    PEM_write_X509(file, certificate);
    std::fclose(file);
    file = std::fopen(Key(name).c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    if (first) {
      authority_ = certificate;
      authority_key_ = key;
    } else {
      X509_free(certificate);
      EVP_PKEY_free(key);
    }
  }

  std::string Pem(const std::string& name) const { return folder_ + "/" + name + ".pem"; }
  std::string Key(const std::string& name) const { return folder_ + "/" + name + ".key"; }

  // NAME.pem with the certificates of these names, one after the other.
  void Join(const std::string& name, std::initializer_list<std::string> parts) {
    std::string all;
    for (const std::string& part : parts) {
      std::ifstream file(Pem(part));
      all.append(std::istreambuf_iterator<char>(file), {});
    }
    std::ofstream(Pem(name)) << all;
  }

 private:
  std::string folder_;
  X509* authority_ = nullptr;
  EVP_PKEY* authority_key_ = nullptr;
  long serial_ = 0;
};

}  // namespace msserving::testing
