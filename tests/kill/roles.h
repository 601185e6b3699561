// What this program does as a child: somebody who is killed, or who comes after it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kmcl::kill {

// Arguments of a child. `descriptors`: how many the parent had when it began; a child that has
// others than those inherited one of the library's.
std::vector<std::string> BusyClientRole(std::uint64_t seed, const std::string& address,
                                        int descriptors);
std::vector<std::string> BusyServerRole(std::uint64_t seed, const std::string& address,
                                        int descriptors);
// Ends that nobody kills in the midst. The client says kReady once all its channels are answered;
// at kVisit it says kVisited once they were answered again, and kUnserved once they are closed.
std::vector<std::string> LastingServerRole(std::uint64_t seed, const std::string& address,
                                           int descriptors);
std::vector<std::string> LastingClientRole(std::uint64_t seed, const std::string& address,
                                           int descriptors);
// Visits once with so many descriptors (or bytes of address space) more than it begins with, and
// says the NTSTATUS; then twice with all it wants, and says kVisited if that went well and left
// nothing.
inline constexpr int kEndedByLibrary = 77;  // exit status: one of its threads had no memory
std::vector<std::string> PoorVisitorRole(std::uint64_t descriptors_more, const std::string& address,
                                         int descriptors);
std::vector<std::string> NarrowVisitorRole(std::uint64_t bytes_more, const std::string& address,
                                           int descriptors);
// Floods the server (flooder.h); says kReady once it does.
std::vector<std::string> FlooderRole(std::uint64_t seed, const std::string& address,
                                     int descriptors);
// Another user, who visits: says the NTSTATUS.
std::vector<std::string> StrangerRole(const std::string& address, int descriptors);
// A client that is killed by the clock, beside its server.
std::vector<std::string> OtherClientRole(std::uint64_t seed, const std::string& address,
                                         int descriptors);
// The two servers of a handover; each has an end of it as kHandoverFd.
std::vector<std::string> OldServerRole(std::uint64_t seed, const std::string& address,
                                       int descriptors);
std::vector<std::string> NewServerRole(std::uint64_t seed, const std::string& address,
                                       int descriptors);
std::vector<std::string> EchoServerRole(const std::string& address, int descriptors);
std::vector<std::string> VisitorRole(const std::string& address, int descriptors);

// What children say on their line.
inline constexpr char kReady = 'r';     // servers: clients may connect
inline constexpr char kHandOver = 'o';  // to the old server: go
inline constexpr char kServes =
    's';  // from either: the handover has ended, and the clients are here
inline constexpr char kServesNot = 'x';  // or not
inline constexpr char kVisit = 'v';     // to a visitor: go
inline constexpr char kVisited = 'y';   // from a visitor: the request was answered
inline constexpr char kUnserved = 'n';  // it was not

// Plays the role that the arguments name and returns its exit status. Servers and clients return
// only when they fail.
bool IsRole(int argc, char** argv);
int PlayRole(char** argv);

}  // namespace kmcl::kill
