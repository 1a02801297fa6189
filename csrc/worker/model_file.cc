#include "worker/model_file.h"

#include <openssl/evp.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string_view>

namespace msserving {
namespace {

// A file is a row of blocks. A block: magic number; with GCM the tag; the length of the rest; the length of the
// initialisation vector and it; the length of the cipher text and it. All lengths are four bytes, little-endian.
constexpr uint32_t kGcmMagic = 0x7F3A5ED8;
constexpr uint32_t kCbcMagic = 0x7F3A5ED9;
constexpr size_t kTagBytes = 16;
constexpr size_t kIvBytes = 16;  // of which GCM takes the first twelve

using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;

// Takes bytes off the front; empty and false if there are too few.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}
  bool Take(size_t count, std::string_view* piece) {
    if (count > text_.size()) {
      return false;
    }
    *piece = text_.substr(0, count);
    text_.remove_prefix(count);
    return true;
  }
  bool TakeNumber(uint32_t* number) {
    std::string_view piece;
    if (!Take(sizeof(*number), &piece)) {
      return false;
    }
    std::memcpy(number, piece.data(), sizeof(*number));
    return true;
  }
  bool empty() const { return text_.empty(); }

 private:
  std::string_view text_;
};

struct Block {
  std::string_view tag;
  std::string_view iv;
  std::string_view cipher;
};

bool TakeBlock(Reader* reader, bool gcm, Block* block) {
  uint32_t rest = 0;
  uint32_t iv_bytes = 0;
  uint32_t cipher_bytes = 0;
  return (!gcm || reader->Take(kTagBytes, &block->tag)) && reader->TakeNumber(&rest) && reader->TakeNumber(&iv_bytes) &&
         iv_bytes == kIvBytes && reader->Take(iv_bytes, &block->iv) && reader->TakeNumber(&cipher_bytes) &&
         uint64_t{rest} == uint64_t{cipher_bytes} + kIvBytes + 8 && cipher_bytes <= INT32_MAX &&
         reader->Take(cipher_bytes, &block->cipher);
}

const EVP_CIPHER* CipherOf(size_t key_bytes, bool gcm) {
  switch (key_bytes) {
    case 16: return gcm ? EVP_aes_128_gcm() : EVP_aes_128_cbc();
    case 24: return gcm ? EVP_aes_192_gcm() : EVP_aes_192_cbc();
    case 32: return gcm ? EVP_aes_256_gcm() : EVP_aes_256_cbc();
    default: return nullptr;
  }
}

bool DecryptBlock(const Block& block, const Secret& key, bool gcm, std::string* content) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); };
  const Context context(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free);
  const EVP_CIPHER* cipher = CipherOf(key.bytes().size(), gcm);
  if (context == nullptr || cipher == nullptr ||
      EVP_DecryptInit_ex(context.get(), cipher, nullptr, nullptr, nullptr) != 1 ||
      EVP_DecryptInit_ex(context.get(), nullptr, nullptr, key.bytes().data(), bytes(block.iv)) != 1) {
    return false;
  }
  const size_t before = content->size();
  content->resize(before + block.cipher.size() + EVP_MAX_BLOCK_LENGTH);
  auto* out = reinterpret_cast<uint8_t*>(content->data() + before);
  int first = 0;
  int last = 0;
  const bool good =
      EVP_DecryptUpdate(context.get(), out, &first, bytes(block.cipher), static_cast<int>(block.cipher.size())) == 1 &&
      (!gcm ||
       EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_GCM_SET_TAG, kTagBytes, const_cast<char*>(block.tag.data())) == 1) &&
      EVP_DecryptFinal_ex(context.get(), out + first, &last) == 1;
  content->resize(before + (good ? static_cast<size_t>(first + last) : 0));
  return good;
}

}  // namespace

Status DecryptModelFile(const std::string& path, const Secret& key, const std::string& mode, std::string* content) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return Status(ErrorKind::kInvalidInput, std::string(std::strerror(errno)));
  }
  const std::string encrypted{std::istreambuf_iterator<char>(file), {}};
  const bool gcm = mode == "AES-GCM";
  Reader reader(encrypted);
  content->clear();
  do {
    uint32_t magic = 0;
    Block block;
    if (!reader.TakeNumber(&magic) || magic != (gcm ? kGcmMagic : kCbcMagic)) {
      return Status(ErrorKind::kInvalidInput, "it is not a model file encrypted with " + mode);
    }
    if (!TakeBlock(&reader, gcm, &block)) {
      return Status(ErrorKind::kInvalidInput, "it is cut off or damaged");
    }
    if (!DecryptBlock(block, key, gcm, content)) {
      return Status(ErrorKind::kInvalidInput, "dec_key and dec_mode do not decrypt it");
    }
  } while (!reader.empty());
  return Status::Ok();
}

}  // namespace msserving
