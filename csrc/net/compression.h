// gzip and deflate for gRPC messages, on zlib, one whole message at a time.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "net/buffer.h"

namespace msserving {

enum class Encoding : uint8_t { kIdentity, kGzip, kDeflate, kUnknown };

// Keeps zlib's state from message to message. One thread.
class Compression {
 public:
  enum class Result { kOk, kCorrupt, kTooLarge };

  Compression() = default;
  Compression(const Compression&) = delete;
  ~Compression();

  // Appends the decompressed bytes to `plain`. Stops as soon as there would be more than `limit` of them; takes memory
  // only for what has really been decompressed.
  Result Inflate(Encoding encoding, std::span<const uint8_t> packed, size_t limit, Buffer* plain);

  // Appends a whole gzip stream to `packed`. Begin, any number of pieces, end. Throws std::bad_alloc.
  void BeginGzip(Buffer* packed, size_t plain_size);
  void AddGzip(std::span<const uint8_t> plain) { Deflate(plain, Z_NO_FLUSH); }
  void EndGzip() { Deflate({}, Z_FINISH); }

 private:
  void Deflate(std::span<const uint8_t> plain, int flush);

  z_stream inflate_{};
  z_stream deflate_{};
  bool inflate_ready_ = false;
  bool deflate_ready_ = false;
  Buffer* packed_ = nullptr;
};

}  // namespace msserving
