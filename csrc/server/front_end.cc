#include "server/front_end.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/thread.h"
#include "net/listen.h"
#include "protocol/grpc_predict_service.h"
#include "protocol/rest_service.h"

namespace msserving {

struct FrontEnd::LoopThread final : HealthSource {
  explicit LoopThread(const Readiness* r) : readiness(r) {}

  bool live() override { return true; }
  bool ready() override { return readiness->ready.load() && !readiness->draining.load(); }
  ServableHealth servable(std::string_view name, uint64_t version) override {
    const ServableHealth health = dispatcher->Health(name, version);
    return health == ServableHealth::kServing && readiness->draining.load() ? ServableHealth::kNotServing : health;
  }

  const Readiness* readiness;
  UniqueFd doorbell;  // the end that workers are given
  UniqueFd listener;  // on its way from the starting thread to the loop
  // Destroyed from the bottom up, on the loop's thread: servers before their services, those before the dispatcher.
  EventLoop loop;
  std::unique_ptr<LoopDispatcher> dispatcher;
  std::unique_ptr<GrpcPredictService> grpc_service;
  std::unique_ptr<RestService> rest_service;
  std::unique_ptr<GrpcServer> grpc;
  std::unique_ptr<HttpServer> rest;
  std::thread thread;
};

namespace {

// Calls `function` at the n-th call.
std::function<void()> AtCall(size_t n, std::function<void()> function) {
  auto left = std::make_shared<std::atomic<size_t>>(n);
  return [left = std::move(left), function = std::move(function)] {
    if (left->fetch_sub(1) == 1) {
      function();
    }
  };
}

}  // namespace

FrontEnd::FrontEnd(FrontEndOptions options) : options_(options) {}

FrontEnd::~FrontEnd() { Stop(); }

Status FrontEnd::Start() {
  for (int i = 0; i < std::max(1, options_.io_threads); ++i) {
    auto loop = std::make_unique<LoopThread>(&readiness_);
    loop->loop.SetSpin(options_.spin_ns);
    loop->doorbell.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    UniqueFd own(loop->doorbell ? fcntl(loop->doorbell.get(), F_DUPFD_CLOEXEC, 0) : -1);
    if (!own) {
      return Status(ErrorKind::kInternal, std::string("cannot make an event descriptor: ") + std::strerror(errno));
    }
    loop->dispatcher = std::make_unique<LoopDispatcher>(&loop->loop, std::move(own), limits_);
    loop->grpc_service = std::make_unique<GrpcPredictService>(loop->dispatcher.get(), loop.get());
    loop->rest_service = std::make_unique<RestService>(loop->dispatcher.get(), loop.get());
    loops_.push_back(std::move(loop));
    LoopThread* started = loops_.back().get();
    try {
      started->thread = StartThread("serving-io-" + std::to_string(i), [started] { started->loop.Run(); });
    } catch (const std::system_error& error) {
      loops_.pop_back();  // nobody runs it: whoever asked it for something would wait for ever
      return Status(ErrorKind::kInternal, "cannot start a thread for connections: " + error.code().message() +
                                              "; raise the limit of processes and threads (ulimit -u, pids.max of "
                                              "the control group, TasksMax of the systemd unit)");
    }
  }
  return Status::Ok();
}

void FrontEnd::OnAllLoops(const std::function<void(LoopThread*)>& function) {
  std::vector<std::future<void>> done;
  for (const auto& loop : loops_) {
    auto promise = std::make_shared<std::promise<void>>();
    done.push_back(promise->get_future());
    LoopThread* target = loop.get();
    target->loop.Post([&function, target, promise] {
      function(target);
      promise->set_value();
    });
  }
  for (auto& d : done) {
    d.wait();
  }
}

Status FrontEnd::ShareListener(const std::string& address, bool allow_unix,
                               const std::function<void(LoopThread*, UniqueFd)>& take) {
  Address parsed;
  std::vector<UniqueFd> sockets;
  if (Status status = ParseAddress(address, allow_unix, &parsed); !status.ok()) {
    return status;
  }
  if (Status status = Listen(parsed, static_cast<int>(loops_.size()), &sockets); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < loops_.size(); ++i) {
    loops_[i]->listener = std::move(sockets[i]);
  }
  OnAllLoops([&take](LoopThread* loop) { take(loop, std::move(loop->listener)); });
  return Status::Ok();
}

Status FrontEnd::StartGrpc(const std::string& address, GrpcServerOptions options, std::shared_ptr<TlsContext> tls) {
  options.connections = std::make_shared<std::atomic<size_t>>(0);
  options.bytes_in_flight = {limits_, &limits_->bytes_in_flight};
  Status status = ShareListener(address, true, [&](LoopThread* loop, UniqueFd socket) {
    loop->grpc = std::make_unique<GrpcServer>(&loop->loop, std::move(socket), options, loop->grpc_service.get(), tls);
  });
  has_grpc_ = has_grpc_ || status.ok();
  return status;
}

Status FrontEnd::StartRest(const std::string& address, HttpServerOptions options, std::shared_ptr<TlsContext> tls) {
  options.connections = std::make_shared<std::atomic<size_t>>(0);
  options.bytes_in_flight = {limits_, &limits_->bytes_in_flight};
  Status status = ShareListener(address, false, [&](LoopThread* loop, UniqueFd socket) {
    loop->rest = std::make_unique<HttpServer>(&loop->loop, std::move(socket), options, loop->rest_service.get(), tls);
  });
  has_rest_ = has_rest_ || status.ok();
  return status;
}

Status FrontEnd::MakeAttachment(std::vector<std::shared_ptr<SharedMemory>>* request_slabs,
                                WorkerAttachment* attachment) {
  attachment->worker_doorbell.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!attachment->worker_doorbell) {
    return Status(ErrorKind::kInternal, std::string("cannot make an event descriptor: ") + std::strerror(errno));
  }
  if (request_slabs->empty()) {
    std::vector<std::shared_ptr<SharedMemory>> slabs;
    for (size_t i = 0; i < loops_.size(); ++i) {
      slabs.push_back(std::make_shared<SharedMemory>());
      Status status = SharedMemory::Create("serving requests", options_.request_slab_bytes, slabs.back().get());
      if (!status.ok()) {
        return status;
      }
    }
    *request_slabs = std::move(slabs);
  }
  attachment->request_slabs = *request_slabs;
  for (size_t i = 0; i < loops_.size(); ++i) {
    WorkerChannel channel;
    Status status = SharedMemory::Create("serving rings", ChannelLayout::kBytes, &channel.control);
    if (status.ok()) {
      status = SharedMemory::Create("serving replies", options_.reply_slab_bytes, &channel.replies);
    }
    if (!status.ok()) {
      return status;
    }
    attachment->channels.push_back(std::move(channel));
  }
  return Status::Ok();
}

std::vector<int> FrontEnd::DescriptorsOf(const WorkerAttachment& attachment) const {
  std::vector<int> fds{attachment.worker_doorbell.get()};
  for (size_t i = 0; i < loops_.size(); ++i) {
    fds.push_back(attachment.channels[i].control.fd());
    fds.push_back(attachment.channels[i].replies.fd());
    fds.push_back(attachment.request_slabs[i]->fd());
    fds.push_back(loops_[i]->doorbell.get());
  }
  return fds;
}

void FrontEnd::AddWorker(uint64_t worker, const ServableSignature& signature, WorkerAttachment attachment,
                         const std::shared_ptr<const VersionGate>& gate) {
  for (size_t i = 0; i < loops_.size(); ++i) {
    UniqueFd doorbell(fcntl(attachment.worker_doorbell.get(), F_DUPFD_CLOEXEC, 0));
    auto link = std::make_shared<WorkerLink>(worker, std::move(attachment.channels[i]), std::move(doorbell));
    link->extra = attachment.extra;
    loops_[i]->loop.Post([loop = loops_[i].get(), signature, slab = attachment.request_slabs[i], link, gate] {
      loop->dispatcher->AddWorker(signature, slab, link, gate);
    });
  }
}

void FrontEnd::ProbeWorker(uint64_t worker, const std::function<void(const Status&)>& answered) {
  const auto came_back = AtCall(loops_.size(), [answered] { answered(Status::Ok()); });
  const auto one_loop = [answered, came_back](const Status& status) {
    if (status.ok()) {
      came_back();
    } else {
      answered(status);
    }
  };
  for (const auto& loop : loops_) {
    loop->loop.Post([target = loop.get(), worker, one_loop] { target->dispatcher->ProbeWorker(worker, one_loop); });
  }
}

void FrontEnd::JoinWorker(uint64_t worker) {
  for (const auto& loop : loops_) {
    loop->loop.Post([target = loop.get(), worker] { target->dispatcher->JoinWorker(worker); });
  }
}

void FrontEnd::RemoveWorker(uint64_t worker, const std::string& reason) {
  for (const auto& loop : loops_) {
    loop->loop.Post([target = loop.get(), worker, reason] { target->dispatcher->RemoveWorker(worker, reason); });
  }
}

void FrontEnd::GiveUp(uint64_t worker, uint8_t running) {
  for (const auto& loop : loops_) {
    loop->loop.Post([target = loop.get(), worker, running] { target->dispatcher->GiveUp(worker, running); });
  }
}

void FrontEnd::DropVersion(const std::string& servable, uint64_t version) {
  for (const auto& loop : loops_) {
    loop->loop.Post([target = loop.get(), servable, version] { target->dispatcher->DropVersion(servable, version); });
  }
}

void FrontEnd::WhenDrained(const std::string& servable, uint64_t version, std::function<void()> drained) {
  const auto one_loop = AtCall(loops_.size(), std::move(drained));
  for (const auto& loop : loops_) {
    loop->loop.Post([target = loop.get(), servable, version, one_loop] {
      target->dispatcher->WhenDrained(servable, version, one_loop);
    });
  }
}

void FrontEnd::Barrier(std::function<void()> done) {
  if (loops_.empty()) {
    done();
    return;
  }
  const auto one_loop = AtCall(loops_.size(), std::move(done));
  for (const auto& loop : loops_) {
    loop->loop.Post(one_loop);
  }
}

void FrontEnd::Drain() {
  readiness_.draining = true;
  OnAllLoops([](LoopThread* loop) {
    if (loop->grpc) {
      loop->grpc->Drain();
    }
    if (loop->rest) {
      loop->rest->Drain();
    }
  });
}

size_t FrontEnd::Calls() {
  std::atomic<size_t> calls{0};
  OnAllLoops([&calls](LoopThread* loop) {
    calls += (loop->grpc ? loop->grpc->calls() : 0) + (loop->rest ? loop->rest->calls() : 0);
  });
  return calls;
}

void FrontEnd::Stop() {
  OnAllLoops([](LoopThread* loop) {
    loop->rest.reset();
    loop->grpc.reset();
    loop->rest_service.reset();
    loop->grpc_service.reset();
    loop->dispatcher.reset();
  });
  for (const auto& loop : loops_) {
    loop->loop.Stop();
  }
  for (const auto& loop : loops_) {
    loop->thread.join();
  }
  loops_.clear();
  has_grpc_ = false;
  has_rest_ = false;
}

FrontEnd::Stats FrontEnd::CollectStats() const {
  Stats sum;
  for (const auto& loop : loops_) {
    const DispatchStats& stats = loop->dispatcher->stats();
    sum.accepted += stats.accepted.load(std::memory_order_relaxed);
    sum.answered += stats.answered.load(std::memory_order_relaxed);
    sum.cancelled += stats.cancelled.load(std::memory_order_relaxed);
    sum.refused += stats.refused.load(std::memory_order_relaxed);
    sum.redispatched += stats.redispatched.load(std::memory_order_relaxed);
    sum.lost_worker += stats.lost_worker.load(std::memory_order_relaxed);
  }
  sum.pending = limits_->pending_requests.load(std::memory_order_relaxed);
  sum.bytes_in_flight = limits_->bytes_in_flight.used();
  return sum;
}

}  // namespace msserving
