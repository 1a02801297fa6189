#include "net/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <cerrno>
#include <new>

namespace msserving {

// OpenSSL's view of the socket.
struct TlsBio {
  static TlsStream* Self(BIO* bio) { return static_cast<TlsStream*>(BIO_get_data(bio)); }

  static int Read(BIO* bio, char* to, int size) {
    BIO_clear_retry_flags(bio);
    if (size <= 0) {
      return 0;
    }
    ssize_t got;
    do {
      got = recv(Self(bio)->fd_, to, static_cast<size_t>(size), 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      BIO_set_retry_read(bio);
    } else if (got == 0) {
      Self(bio)->read_ended_ = true;
    }
    return static_cast<int>(got);
  }

  static int Write(BIO* bio, const char* from, int size) {
    BIO_clear_retry_flags(bio);
    if (size <= 0) {
      return 0;
    }
    TlsStream* self = Self(bio);
    if (self->wire_.capacity() == 0) {
      self->wire_ = self->pool_.Acquire(static_cast<size_t>(size) * 2);
    }
    self->wire_.Append(from, static_cast<size_t>(size));
    return size;
  }

  static long Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO_METHOD* Method() {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "msserving socket");
      if (made == nullptr || BIO_meth_set_read(made, &Read) != 1 || BIO_meth_set_write(made, &Write) != 1 ||
          BIO_meth_set_ctrl(made, &Control) != 1) {
        throw std::bad_alloc();
      }
      return made;
    }();
    return method;
  }
};

TlsStream::TlsStream(const TlsContext& context, int fd, BufferPool* pool) : fd_(fd), pool_(*pool) {
  ssl_ = context.NewSession();
  BIO* bio = ssl_ != nullptr ? BIO_new(TlsBio::Method()) : nullptr;
  if (bio == nullptr) {
    SSL_free(ssl_);
    throw std::bad_alloc();
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  if (context.is_client()) {
    SSL_set_connect_state(ssl_);
  } else {
    SSL_set_accept_state(ssl_);
  }
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

bool TlsStream::established() const { return SSL_is_init_finished(ssl_) == 1; }

TlsStream::Result TlsStream::Translate(int result) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: return Result::kWait;
    case SSL_ERROR_ZERO_RETURN: return Result::kEnd;
    default: return read_ended_ && established() ? Result::kEnd : Result::kFailed;
  }
}

TlsStream::Result TlsStream::Read(std::span<uint8_t> to, size_t* size) {
  ERR_clear_error();
  const int got = SSL_read_ex(ssl_, to.data(), to.size(), size);
  return got == 1 ? Result::kOk : Translate(got);
}

TlsStream::Result TlsStream::Write(std::span<const uint8_t> plain) {
  if (!established()) {
    return Result::kWait;
  }
  size_t done = 0;
  while (done < plain.size()) {
    ERR_clear_error();
    size_t taken = 0;
    const int result = SSL_write_ex(ssl_, plain.data() + done, plain.size() - done, &taken);
    if (result != 1) {
      return Result::kFailed;  // wire() takes everything, so there is nothing to wait for
    }
    done += taken;
  }
  return Result::kOk;
}

void TlsStream::Shutdown() {
  if (established()) {
    ERR_clear_error();
    SSL_shutdown(ssl_);
  }
}

}  // namespace msserving
