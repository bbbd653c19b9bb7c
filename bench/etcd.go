package main

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.uber.org/zap"
)

func (h *harness) dialEtcd() *clientv3.Client {
	return must(clientv3.New(clientv3.Config{Endpoints: []string{h.etcd}, Context: h.ctx, Logger: zap.NewNop()}))
}

// etcdSessions are n sessions on one client, which multiplexes them.
func etcdSessions(client *clientv3.Client, n int) []*concurrency.Session {
	sessions := make([]*concurrency.Session, n)
	for i := range sessions {
		sessions[i] = must(concurrency.NewSession(client, concurrency.WithTTL(int(ttl.Seconds()))))
	}
	return sessions
}

// etcds take the i-th target in the i-th session.
func etcds(ctx context.Context, sessions []*concurrency.Session, targets []string) []acquirer {
	acquirers := make([]acquirer, len(targets))
	for i, target := range targets {
		acquirers[i] = func() (func() error, error) {
			m := concurrency.NewMutex(sessions[i], target)
			if err := m.Lock(ctx); err != nil {
				return nil, err
			}
			return func() error { return m.Unlock(ctx) }, nil
		}
	}
	return acquirers
}
