#include "net/listen.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

namespace msserving {
namespace {

std::string Why(std::string_view text, bool allow_unix = true) {
  Address address;
  return ParseAddress(text, allow_unix, &address).message();
}

int PortOf(const UniqueFd& fd) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

bool Connects(int port) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

TEST(ParseAddressTest, LastColonSplits) {
  Address address;
  ASSERT_TRUE(ParseAddress("127.0.0.1:5500", false, &address).ok());
  EXPECT_EQ(address.host, "127.0.0.1");
  EXPECT_EQ(address.port, 5500);
  ASSERT_TRUE(ParseAddress("[::1]:65535", false, &address).ok());
  EXPECT_EQ(address.host, "::1");
  EXPECT_EQ(address.port, 65535);
  ASSERT_TRUE(ParseAddress("localhost:1", false, &address).ok());
  EXPECT_EQ(address.host, "localhost");
}

TEST(ParseAddressTest, ErrorsSayWhatIsWrong) {
  for (const char* port : {"0", "65536", "-1", "99999999999999999999"}) {
    EXPECT_NE(Why(std::string("127.0.0.1:") + port).find("out of legal range [1 ~ 65535]"), std::string::npos) << port;
  }
  EXPECT_NE(Why("127.0.0.1:http").find("'http' is not a number"), std::string::npos);
  EXPECT_NE(Why("127.0.0.1:80x").find("is not a number"), std::string::npos);
  EXPECT_NE(Why("127.0.0.1: 80").find("is not a number"), std::string::npos);
  EXPECT_NE(Why("127.0.0.1").find("port part is missing"), std::string::npos);
  EXPECT_NE(Why("127.0.0.1:").find("port part is missing"), std::string::npos);
  EXPECT_NE(Why(":5500").find("ip part is missing"), std::string::npos);
  EXPECT_NE(Why("::1:5500").find("brackets"), std::string::npos);
  EXPECT_NE(Why("").find("address format is illegal"), std::string::npos);
}

TEST(ParseAddressTest, UnixOnlyWhereItIsAllowed) {
  Address address;
  ASSERT_TRUE(ParseAddress("unix:/tmp/a b", true, &address).ok());
  EXPECT_EQ(address.unix_path, "/tmp/a b");
  EXPECT_NE(Why("unix:/tmp/a", false).find("unix socket cannot be used"), std::string::npos);
  EXPECT_NE(Why("unix:").find("unix path is empty"), std::string::npos);
}

TEST(ListenTest, SocketsOfOneCallShareThePort) {
  std::vector<UniqueFd> sockets;
  const Status status = Listen({"127.0.0.1", 0, ""}, 3, &sockets);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(sockets.size(), 3u);
  EXPECT_EQ(PortOf(sockets[0]), PortOf(sockets[1]));
  EXPECT_EQ(PortOf(sockets[0]), PortOf(sockets[2]));
  // Connections reach more than one of them.
  for (int i = 0; i < 64; ++i) {
    EXPECT_TRUE(Connects(PortOf(sockets[0])));
  }
  int busy = 0;
  for (const UniqueFd& fd : sockets) {
    UniqueFd peer(accept(fd.get(), nullptr, nullptr));
    busy += peer ? 1 : 0;
  }
  EXPECT_GE(busy, 2);
}

TEST(ListenTest, PortOfAnotherIsRefused) {
  for (const int count : {1, 2}) {
    std::vector<UniqueFd> first;
    ASSERT_TRUE(Listen({"127.0.0.1", 0, ""}, count, &first).ok());
    for (const int again : {1, 2}) {
      std::vector<UniqueFd> second;
      const Status status = Listen({"127.0.0.1", PortOf(first[0]), ""}, again, &second);
      EXPECT_FALSE(status.ok()) << count << " " << again;
      EXPECT_TRUE(second.empty());
      EXPECT_NE(status.message().find("create server failed, address"), std::string::npos);
      EXPECT_NE(status.message().find("bind to the socket address"), std::string::npos);
    }
  }
}

TEST(ListenTest, UnknownHostIsToldByName) {
  std::vector<UniqueFd> sockets;
  const Status status = Listen({"no such host", 5500, ""}, 1, &sockets);
  EXPECT_NE(status.message().find("no such host"), std::string::npos);
}

class UnixListenTest : public ::testing::Test {
 protected:
  UnixListenTest() {
    char name[] = "/tmp/msserving_listen_XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/socket";
  }
  ~UnixListenTest() override {
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }
  bool Connects() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  std::string directory_;
  std::string path_;
};

TEST_F(UnixListenTest, OneSocketIsShared) {
  std::vector<UniqueFd> sockets;
  ASSERT_TRUE(Listen({"", 0, path_}, 2, &sockets).ok());
  ASSERT_EQ(sockets.size(), 2u);
  EXPECT_TRUE(Connects());
  EXPECT_TRUE(UniqueFd(accept(sockets[1].get(), nullptr, nullptr)));
}

TEST_F(UnixListenTest, LiveSocketIsRefusedAndStaleOneReplaced) {
  std::vector<UniqueFd> sockets;
  ASSERT_TRUE(Listen({"", 0, path_}, 1, &sockets).ok());
  std::vector<UniqueFd> others;
  EXPECT_FALSE(Listen({"", 0, path_}, 1, &others).ok());
  EXPECT_TRUE(Connects());
  sockets.clear();  // as after a crash: the file stays
  EXPECT_FALSE(Connects());
  EXPECT_TRUE(Listen({"", 0, path_}, 1, &others).ok());
  EXPECT_TRUE(Connects());
}

TEST_F(UnixListenTest, OtherFilesAreLeftAlone) {
  std::ofstream(path_) << "precious";
  std::vector<UniqueFd> sockets;
  EXPECT_FALSE(Listen({"", 0, path_}, 1, &sockets).ok());
  std::string content;
  std::ifstream(path_) >> content;
  EXPECT_EQ(content, "precious");
}

TEST_F(UnixListenTest, DirectoryMustExistAndThePathMustFit) {
  std::vector<UniqueFd> sockets;
  EXPECT_NE(Listen({"", 0, directory_ + "/none/socket"}, 1, &sockets).message().find("does not exist"),
            std::string::npos);
  EXPECT_NE(Listen({"", 0, directory_ + "/" + std::string(200, 'x')}, 1, &sockets).message().find("at most"),
            std::string::npos);
}

}  // namespace
}  // namespace msserving
