// Prints commands and replies as github.com/centrifugal/protocol encodes them, a line each: in Protobuf, in hexadecimal
// digits; and commands in JSON as well. src/protocol/protobuf/vectors.txt is the output of
//
//	go run ./vectors
package main

import (
	"encoding/hex"
	"fmt"

	"github.com/centrifugal/protocol"
	"google.golang.org/protobuf/proto"
)

type raw = protocol.Raw

func main() {
	for _, command := range commands() {
		binary, err := proto.Marshal(command)
		check(err)
		json, err := protocol.NewJSONCommandEncoder().Encode(command)
		check(err)
		fmt.Println("command", hex.EncodeToString(binary), string(json))
	}
	for _, reply := range replies() {
		binary, err := proto.Marshal(reply)
		check(err)
		fmt.Println("reply", hex.EncodeToString(binary))
	}
}

func commands() []*protocol.Command {
	subscribe := func(request *protocol.SubscribeRequest) *protocol.Command {
		return &protocol.Command{Id: 3, Subscribe: request}
	}
	return []*protocol.Command{
		{Id: 1, Connect: &protocol.ConnectRequest{}},
		{Id: 300, Connect: &protocol.ConnectRequest{
			Token: "a.b.c", Data: raw(`{"a":1}`), Name: "go", Version: "1.2",
			Subs:    map[string]*protocol.SubscribeRequest{"news": {Recover: true, Offset: 300, Epoch: "000000ff", Delta: "fossil"}},
			Headers: map[string]string{"k": "v"}, Flag: 1,
		}},
		{Id: 2, Connect: &protocol.ConnectRequest{Subs: map[string]*protocol.SubscribeRequest{"news": {Offset: 3}}}},
		subscribe(&protocol.SubscribeRequest{Channel: "a"}),
		subscribe(&protocol.SubscribeRequest{Channel: "é", Token: "t", Recover: true, Offset: 1 << 40, Epoch: "000000ff", Flag: 3}),
		subscribe(&protocol.SubscribeRequest{
			Channel: "a", Data: raw("1"), Positioned: true, Recoverable: true, JoinLeave: true, Delta: "fossil", Limit: -1, Asc: true,
		}),
		subscribe(&protocol.SubscribeRequest{Channel: "a", Type: 4}),
		subscribe(&protocol.SubscribeRequest{Channel: "a", Type: -1}),
		subscribe(&protocol.SubscribeRequest{Channel: "a", Delta: "xor"}),
		subscribe(&protocol.SubscribeRequest{Channel: "a", Tf: &protocol.FilterNode{Key: "k", Cmp: "eq", Val: "v"}}),
		{Id: 4, Unsubscribe: &protocol.UnsubscribeRequest{Channel: "a"}},
		{Id: 5, Publish: &protocol.PublishRequest{Channel: "a", Data: raw(`{"x":[1]}`)}},
		{Publish: &protocol.PublishRequest{Channel: "a", Data: raw("7")}},
		{Id: 6, Presence: &protocol.PresenceRequest{Channel: "a"}},
		{Id: 7, PresenceStats: &protocol.PresenceStatsRequest{Channel: "a"}},
		{Id: 8, History: &protocol.HistoryRequest{Channel: "a"}},
		{Id: 8, History: &protocol.HistoryRequest{Channel: "a", Limit: -1, Reverse: true}},
		{Id: 8, History: &protocol.HistoryRequest{Channel: "a", Limit: 7, Since: &protocol.StreamPosition{Offset: 3, Epoch: "00000001"}}},
		{Id: 8, History: &protocol.HistoryRequest{Channel: "a", Since: &protocol.StreamPosition{}, Reverse: true}},
		{Id: 9, Ping: &protocol.PingRequest{}},
		{Send: &protocol.SendRequest{Data: raw("1")}},
		{Id: 10, Rpc: &protocol.RPCRequest{Method: "m", Data: raw(`"d"`)}},
		{Id: 10, Rpc: &protocol.RPCRequest{Method: "m"}},
		{Id: 11, Refresh: &protocol.RefreshRequest{Token: "t"}},
		{Id: 12, SubRefresh: &protocol.SubRefreshRequest{Channel: "a", Token: "t"}},
		{Id: 4294967295},
		{},
	}
}

func replies() []*protocol.Reply {
	info := &protocol.ClientInfo{User: "u", Client: "c", ConnInfo: raw("1"), ChanInfo: raw("2")}
	publication := &protocol.Publication{Data: raw("{}"), Info: info, Offset: 300, Tags: map[string]string{"k": "v"}}
	result := &protocol.SubscribeResult{
		Expires: true, Ttl: 9, Recoverable: true, Epoch: "e", Publications: []*protocol.Publication{publication},
		Recovered: true, Offset: 8, Positioned: true, Data: raw("3"), WasRecovering: true,
	}
	push := func(push *protocol.Push) *protocol.Reply { return &protocol.Reply{Push: push} }
	return []*protocol.Reply{
		{},
		{Id: 1, Error: &protocol.Error{Code: 111, Message: "m", Temporary: true}},
		{Id: 2, Connect: &protocol.ConnectResult{
			Client: "c", Version: "v", Expires: true, Ttl: 9, Data: raw("3"), Ping: 25, Pong: true, Session: "s", Node: "n",
			Subs: map[string]*protocol.SubscribeResult{"a": result},
		}},
		{Id: 3, Subscribe: result},
		{Id: 4, Unsubscribe: &protocol.UnsubscribeResult{}},
		{Id: 5, Publish: &protocol.PublishResult{}},
		{Id: 6, Presence: &protocol.PresenceResult{Presence: map[string]*protocol.ClientInfo{"c": info}}},
		{Id: 7, PresenceStats: &protocol.PresenceStatsResult{NumClients: 3, NumUsers: 2}},
		{Id: 8, History: &protocol.HistoryResult{Publications: []*protocol.Publication{publication}, Epoch: "e", Offset: 8}},
		{Id: 9, Ping: &protocol.PingResult{}},
		{Id: 10, Rpc: &protocol.RPCResult{Data: raw("3")}},
		{Id: 11, Refresh: &protocol.RefreshResult{Client: "c", Version: "v", Expires: true, Ttl: 9}},
		{Id: 12, SubRefresh: &protocol.SubRefreshResult{Expires: true, Ttl: 9}},
		push(&protocol.Push{Channel: "a", Pub: publication}),
		push(&protocol.Push{Channel: "a", Join: &protocol.Join{Info: info}}),
		push(&protocol.Push{Channel: "a", Leave: &protocol.Leave{Info: info}}),
		push(&protocol.Push{Channel: "a", Unsubscribe: &protocol.Unsubscribe{Code: 2500, Reason: "r"}}),
		push(&protocol.Push{Channel: "a", Subscribe: &protocol.Subscribe{
			Recoverable: true, Epoch: "e", Offset: 8, Positioned: true, Data: raw("3"),
		}}),
		push(&protocol.Push{Disconnect: &protocol.Disconnect{Code: 3001, Reason: "r"}}),
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
