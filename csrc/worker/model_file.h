// Encrypted model files as MindSpore's export writes them, decrypted with a key that MindSpore itself never sees.
#pragma once

#include <string>

#include "base/error.h"
#include "base/secret.h"

namespace msserving {

// `mode`: "AES-GCM" or "AES-CBC". A failure says whether the file is not one of these, is cut off, or is not decrypted
// by this key; with AES-CBC a wrong key may also give nonsense. *content is wiped by the caller as it sees fit.
Status DecryptModelFile(const std::string& path, const Secret& key, const std::string& mode, std::string* content);

}  // namespace msserving
