#include "distributed/rank_agent.h"

#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "distributed/local_greeting.h"
#include "tensor/control_socket.h"

namespace msserving {
namespace {

constexpr const char* kStopped = "stopped";

}  // namespace

RankAgent::RankAgent(RankAgentOptions options) : options_(std::move(options)), bell_(eventfd(0, EFD_CLOEXEC)) {}

Status RankAgent::Create(RankAgentOptions options, int64_t timeout_ns, std::unique_ptr<RankAgent>* agent) {
  std::unique_ptr<RankAgent> made(new RankAgent(std::move(options)));
  if (!made->bell_) {
    return Status(ErrorKind::kInternal, std::string("eventfd: ") + std::strerror(errno));
  }
  FrameWriter hello;
  hello.U32(kFrameMagic);
  hello.Text(made->options_.token);
  hello.U32(made->options_.rank);
  if (Status status = RankLink::Open(made->options_.worker, timeout_ns, made.get(), &made->link_); !status.ok()) {
    return status;
  }
  made->link_->Start(FrameKind::kHelloAgent, hello.Take());
  *agent = std::move(made);
  return Status::Ok();
}

RankAgent::~RankAgent() {
  returned_.store(true, std::memory_order_release);
  if (link_ != nullptr) {
    link_->Close();
  }
  link_.reset();  // before the sessions, whose outputs it may be sending
}

Status RankAgent::Register(std::vector<std::shared_ptr<Session>> sessions, const std::vector<std::string>& files) {
  if (sessions.empty() || sessions.size() > kMaxModels || files.size() != sessions.size()) {
    return Status(ErrorKind::kInternal, "a rank has from 1 to " + std::to_string(kMaxModels) +
                                            " sub-graphs and a file for each of them; there are " +
                                            std::to_string(sessions.size()) + " sessions and " +
                                            std::to_string(files.size()) + " files");
  }
  if (!graphs_.empty()) {
    return Status(ErrorKind::kInternal, "a rank registers once");
  }
  std::vector<RankModel> models;
  for (size_t i = 0; i < sessions.size(); ++i) {
    const SessionInfo& info = sessions[i]->describe();
    if (info.inputs.size() > kMaxTensors || info.outputs.size() > kMaxTensors) {
      return Status(ErrorKind::kInternal,
                    "a rank's model has at most " + std::to_string(kMaxTensors) + " inputs and as many outputs");
    }
    models.push_back({files[i], info});
    Graph graph;
    graph.inputs.resize(info.inputs.size());
    graph.outputs.resize(info.outputs.size());
    graph.placed.resize(info.outputs.size());
    graph.session = std::move(sessions[i]);
    graphs_.push_back(std::move(graph));
  }
  FrameWriter body;
  WriteModels(models, &body);
  if (body.body().size() > kMaxSmallFrame) {
    return Status(ErrorKind::kInternal, "the description of the rank's models has " +
                                            std::to_string(body.body().size()) + " bytes; at most " +
                                            std::to_string(kMaxSmallFrame) + " are allowed");
  }
  link_->Send(FrameKind::kRegister, body.Take());
  return Status::Ok();
}

void RankAgent::Ring() { eventfd_write(bell_.get(), 1); }

void RankAgent::RequestStop() {
  stop_requested_.store(true, std::memory_order_release);
  Ring();
}

std::string RankAgent::Run(const std::function<bool()>& interrupted) {
  std::string why = RunUntilEnd(interrupted);
  returned_.store(true, std::memory_order_release);
  return why;
}

std::string RankAgent::RunUntilEnd(const std::function<bool()>& interrupted) {
  while (WaitForBell(interrupted)) {
    bool ran = true;
    while (ran) {
      ran = RunNextLocal();
      bool ordered = false;
      {
        std::lock_guard lock(mutex_);
        if (ended_) {
          return why_;
        }
        if (!orders_.empty()) {
          order_ = std::move(orders_.front());
          orders_.pop_front();
          ordered = true;
        }
      }
      if (ordered) {
        RunRemote(&order_);
        ran = true;
      }
    }
    if (stop_requested_.load(std::memory_order_acquire)) {
      return kStopped;
    }
  }
  return kStopped;
}

// False: interrupted.
bool RankAgent::WaitForBell(const std::function<bool()>& interrupted) {
  eventfd_t count;
  while (eventfd_read(bell_.get(), &count) != 0) {
    if (errno != EINTR || (interrupted && interrupted())) {
      return false;
    }
  }
  return true;
}

RankAgent::Graph* RankAgent::GraphOf(uint32_t subgraph, Status* status) {
  if (subgraph >= graphs_.size()) {
    *status = Status(ErrorKind::kInternal, "there is no sub-graph " + std::to_string(subgraph));
    return nullptr;
  }
  return &graphs_[subgraph];
}

// MindSpore checks neither element types nor shapes: what does not fit must not reach it.
Status RankAgent::RunGraph(Graph* graph) {
  const SessionInfo& info = graph->session->describe();
  for (size_t i = 0; i < graph->inputs.size(); ++i) {
    const TensorInfo& expected = info.inputs[i];
    const MsServingTensor& given = graph->inputs[i];
    bool fits =
        given.dtype == static_cast<int32_t>(expected.dtype) && (expected.rank < 0 || given.rank == expected.rank);
    for (int d = 0; fits && d < expected.rank; ++d) {
      const int64_t dim = expected.dims[static_cast<size_t>(d)];
      const auto& sizes = info.batch_sizes;
      fits = dim == -1 || dim == given.dims[d] ||
             (d == 0 && std::find(sizes.begin(), sizes.end(), given.dims[d]) != sizes.end());
    }
    if (!fits) {
      return Status(ErrorKind::kInvalidInput, "input " + std::to_string(i) + " does not fit the rank's model");
    }
  }
  Status status = graph->session->Run(graph->inputs, graph->outputs);
  for (size_t i = 0; status.ok() && i < graph->outputs.size(); ++i) {
    if (!IsWhole(graph->outputs[i])) {
      status = Status(ErrorKind::kInternal, "the size of output " + std::to_string(i) + " does not match its shape");
    }
  }
  return status;
}

Status RankAgent::TakeLocalInputs(uint32_t place, Graph* graph) {
  const BoardOrder& order = board_.order(place);
  if (graph->inputs.empty()) {
    return Status::Ok();
  }
  if (order.inputs != graph->inputs.size()) {
    return Status(ErrorKind::kInternal, "the worker has sent " + std::to_string(order.inputs) +
                                            " inputs, the model has " + std::to_string(graph->inputs.size()));
  }
  if (Status status = inputs_->Follow(local_socket_.get(), place, order.input_generation); !status.ok()) {
    return status;
  }
  for (size_t i = 0; i < graph->inputs.size(); ++i) {
    if (!inputs_->Take(place, board_.inputs(place)[i], &graph->inputs[i])) {
      return Status(ErrorKind::kInternal, "input " + std::to_string(i) + " does not lie in the shared memory");
    }
  }
  return Status::Ok();
}

// False: there is none.
bool RankAgent::RunNextLocal() {
  if (!has_board_.load(std::memory_order_acquire) || halted_ ||
      board_.head().newest.load(std::memory_order_acquire) == last_seq_) {
    return false;
  }
  RunLocal(++last_seq_);
  return true;
}

void RankAgent::RunLocal(uint64_t seq) {
  const uint32_t place = board_.head().places[seq % place_bells_.size()] % place_bells_.size();
  Status status;
  Graph* graph = GraphOf(board_.order(place).subgraph, &status);
  if (graph != nullptr) {
    status = TakeLocalInputs(place, graph);
    if (status.ok()) {
      status = RunGraph(graph);
    }
  }
  AnswerLocally(seq, place, status, graph);
}

void RankAgent::AnswerLocally(uint64_t seq, uint32_t place, const Status& outcome, Graph* graph) {
  BoardOrder& order = board_.order(place);
  BoardSlot& slot = board_.slot(place, slot_);
  Status status = outcome;
  if (status.ok()) {
    BoardTensor* described = board_.outputs(place, slot_);
    Outputs& memory = outputs_[place];
    const bool wanted = order.answering_rank == options_.rank;
    if (wanted) {
      status = memory.arena.Place(graph->outputs, graph->placed.data());
      if (status.ok() && memory.arena.generation() != memory.sent_generation) {
        status = SendMemory(local_socket_.get(), place, memory.arena.fd());
        memory.sent_generation = memory.arena.generation();
      }
    }
    for (size_t i = 0; status.ok() && i < graph->outputs.size(); ++i) {
      const MsServingTensor& output = graph->outputs[i];
      if (wanted) {
        if (output.bytes > 0) {
          std::memcpy(memory.arena.base() + graph->placed[i].offset, output.data, output.bytes);
        }
        described[i] = graph->placed[i];
      } else {
        described[i] = BoardTensor{0, output.bytes, {}, output.dtype, output.rank};
        std::copy_n(output.dims, output.rank, described[i].dims);
      }
    }
    slot.outputs = static_cast<uint32_t>(graph->outputs.size());
    slot.output_generation = memory.sent_generation;
  }
  halted_ = !status.ok() && place_bells_.size() > 1;
  slot.failed = status.ok() ? 0 : 1;
  slot.text_bytes = static_cast<uint32_t>(std::min(status.message().size(), BoardSlot::kTextBytes));
  std::memcpy(slot.text, status.message().data(), slot.text_bytes);
  slot.seq.store(seq, std::memory_order_release);
  if (order.left.fetch_sub(1, std::memory_order_acq_rel) == 1 || !status.ok()) {
    eventfd_write(place_bells_[place].get(), 1);
  }
}

void RankAgent::RunRemote(FrameBody* body) {
  if (halted_) {
    return;
  }
  RunHead run;
  std::vector<MsServingTensor> inputs;
  Status status;
  Graph* graph = nullptr;
  if (!ReadRun(body->bytes(), &run, &inputs)) {
    status = Status(ErrorKind::kInternal, "the worker has sent a broken run");
  } else if (graph = GraphOf(run.subgraph, &status); graph != nullptr) {
    if (inputs.size() != graph->inputs.size()) {
      status = Status(ErrorKind::kInternal, "the worker has sent " + std::to_string(inputs.size()) +
                                                " inputs, the model has " + std::to_string(graph->inputs.size()));
    } else {
      graph->inputs = inputs;
      status = RunGraph(graph);
    }
  }
  const bool several = answers_.size() > 1;
  halted_ = !status.ok() && several;
  Answer& answer = answers_[run.seq % answers_.size()];
  answer.tensors.clear();
  if (status.ok()) {
    answer.tensors = graph->outputs;
  }
  const bool data = status.ok() && run.wants_outputs;
  uint64_t size = WriteDone({run.seq, !status.ok(), status.message()}, answer.tensors, data, &answer.head);
  if (size == 0) {
    answer.tensors.clear();
    halted_ = several;
    size = WriteDone({run.seq, true, "the rank's outputs are too large"}, {}, false, &answer.head);
  } else if (data && several) {
    KeepOutputs(&answer);
  }
  link_->SendTensors(FrameKind::kDone, answer.head.body(), size, answer.tensors);
}

// The session may run again before they have left.
void RankAgent::KeepOutputs(Answer* answer) {
  size_t bytes = 0;
  for (const MsServingTensor& tensor : answer->tensors) {
    bytes += tensor.bytes;
  }
  answer->bytes.resize(std::max(bytes, answer->bytes.size()));
  uint8_t* to = answer->bytes.data();
  for (MsServingTensor& tensor : answer->tensors) {
    if (tensor.bytes > 0) {
      std::memcpy(to, tensor.data, tensor.bytes);
    }
    tensor.data = to;
    to += tensor.bytes;
  }
}

Status RankAgent::OnFrame(FrameKind kind, FrameBody* body) {
  FrameReader reader(body->bytes());
  switch (kind) {
    case FrameKind::kLocal: {
      const bool attached = options_.local_memory && AttachLocally(std::string(reader.Text()));
      FrameWriter answer;
      answer.U8(attached ? 1 : 0);
      link_->Send(FrameKind::kAttached, answer.Take());
      return Status::Ok();
    }
    case FrameKind::kBegin: return Begin(body);
    case FrameKind::kRun: {
      if (answers_.empty()) {
        return Status(ErrorKind::kInvalidInput, "the worker has sent a run before it has begun");
      }
      {
        std::lock_guard lock(mutex_);
        orders_.push_back(std::move(*body));
      }
      Ring();
      return Status::Ok();
    }
    case FrameKind::kStop: End(kStopped); return Status::Ok();
    case FrameKind::kRefused: End("refused: " + std::string(reader.Text())); return Status::Ok();
    default: return Status(ErrorKind::kInvalidInput, "the worker has sent what no agent expects");
  }
}

// The name exists on one machine only, and only the worker's own network namespace knows it.
bool RankAgent::AttachLocally(const std::string& socket_name) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (socket_name.empty() || socket_name.size() >= sizeof(name.sun_path) ||
      options_.token.size() != sizeof(LocalGreeting::token)) {
    return false;
  }
  std::memcpy(name.sun_path + 1, socket_name.data(), socket_name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + socket_name.size());
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience{2, 0};
  if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) != 0 ||
      setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) != 0 ||
      connect(fd.get(), reinterpret_cast<sockaddr*>(&name), size) != 0) {
    return false;
  }
  LocalGreeting greeting{};
  std::memcpy(greeting.token, options_.token.data(), sizeof(greeting.token));
  greeting.rank = options_.rank;
  if (!SendGreeting(fd.get(), greeting, bell_.get())) {
    return false;
  }
  local_socket_ = std::move(fd);
  return true;
}

Status RankAgent::Begin(FrameBody* body) {
  FrameReader reader(body->bytes());
  const bool local = reader.U8() == 1;
  BoardShape shape;
  shape.slots = reader.U32();
  shape.runs = reader.U32();
  shape.max_inputs = reader.U32();
  shape.max_outputs = reader.U32();
  const uint32_t slot = reader.U32();
  if (!reader.AtEnd() || shape.runs < 1 || shape.runs > kMaxRunsOut) {
    return Status(ErrorKind::kInvalidInput, "the worker has sent a broken frame");
  }
  answers_.resize(shape.runs);
  if (local) {
    ControlMessage message;
    if (!local_socket_ || slot >= shape.slots) {
      return Status(ErrorKind::kInvalidInput, "the worker takes this rank for one on its machine");
    }
    if (Status status = ReceiveControl(local_socket_.get(), &message); !status.ok()) {
      return status;
    }
    if (message.kind != 'B' || message.fds.size() != 1 + shape.runs) {
      return Status(ErrorKind::kInvalidInput, "the worker has sent a broken message");
    }
    SharedMemory memory;
    if (Status status = SharedMemory::Map(std::move(message.fds[0]), &memory); !status.ok()) {
      return status;
    }
    if (Status status = LocalBoard::Open(std::move(memory), shape, &board_); !status.ok()) {
      return status;
    }
    for (uint32_t place = 0; place < shape.runs; ++place) {
      place_bells_.push_back(std::move(message.fds[1 + place]));
      outputs_.emplace_back();
    }
    inputs_.emplace(shape.runs);
    slot_ = slot;
    has_board_.store(true, std::memory_order_release);
  }
  link_->Send(FrameKind::kReady);
  return Status::Ok();
}

void RankAgent::OnEnd(const std::string& why) {
  MSSERVING_LOG(kInfo, "Rank " << options_.rank << ": the worker is gone: " << why);
  End("worker gone");
}

void RankAgent::End(const std::string& why) {
  {
    std::lock_guard lock(mutex_);
    if (ended_) {
      return;
    }
    ended_ = true;
    why_ = why;
  }
  Ring();
  link_->loop().AddTimer(link_->loop().now_ns() + options_.leave_after_ns, [this] { Leave(); });
}

void RankAgent::Leave() {
  if (returned_.load(std::memory_order_acquire)) {
    return;
  }
  if (options_.leave) {
    options_.leave(why_);
    return;
  }
  _exit(RankAgentOptions::kExitCode);
}

}  // namespace msserving
