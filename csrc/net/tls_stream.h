// The TLS side of one connection, over a non-blocking socket that it does not own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "net/buffer.h"
#include "net/tls.h"

struct ssl_st;

namespace msserving {

// One thread. Ciphertext is read from the socket directly and written into wire(), so that many records leave in one
// send. Never raises SIGPIPE.
class TlsStream {
 public:
  enum class Result { kOk, kWait, kEnd, kFailed };

  TlsStream(const TlsContext& context, int fd, BufferPool* pool);
  TlsStream(const TlsStream&) = delete;
  ~TlsStream();

  // Plaintext into `to`; the handshake happens in here. kWait: the socket has no more now (and wire() may have grown).
  Result Read(std::span<uint8_t> to, size_t* size);
  // Encrypts all of `plain` into wire(). kWait: the handshake is not complete.
  Result Write(std::span<const uint8_t> plain);
  // Adds the closing alert to wire().
  void Shutdown();

  bool established() const;
  Buffer& wire() { return wire_; }  // ciphertext to send; from wire_sent on
  size_t wire_sent = 0;

 private:
  friend struct TlsBio;
  Result Translate(int result);

  int fd_;
  BufferPool& pool_;
  Buffer wire_;
  bool read_ended_ = false;
  ssl_st* ssl_ = nullptr;
};

}  // namespace msserving
