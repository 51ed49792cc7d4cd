// How to call: one connection, a token with each call, what a refusal says, and what is sent again.

package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/url"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	// domain is the one of every reason that Stampede gives.
	domain = "stampede.sale"
	// callTimeout is for one try of a call.
	callTimeout = 5 * time.Second
	// patience is for a stream, or for calls that are repeated.
	patience = 30 * time.Second
	// The wait before a repeat doubles with each try, within these bounds, and is cut by chance to between half and the
	// whole.
	leastBackoff = 100 * time.Millisecond
	mostBackoff  = 2 * time.Second
)

// connect opens a connection, which is shared by all calls: in plaintext for http, over TLS for https.
func connect(gateway *url.URL) (*grpc.ClientConn, error) {
	security, port := insecure.NewCredentials(), "80"
	if gateway.Scheme == "https" {
		security, port = credentials.NewTLS(nil), "443"
	}
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = 5 * time.Second
	return grpc.NewClient(
		"dns:///"+gateway.Hostname()+":"+cmp.Or(gateway.Port(), port),
		grpc.WithTransportCredentials(security),
		// Calls are repeated in one place, which is here.
		grpc.WithDisableServiceConfig(),
		// Notices a connection that is dead and was never closed while a call or a stream waits on it.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: callTimeout}),
		// Calls wait for the connection within their deadlines. A page of the largest events is longer than what gRPC
		// takes by itself.
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true), grpc.MaxCallRecvMsgSize(24<<20)),
	)
}

// bearer sends a token with a call. It goes over plaintext too: put TLS in front of a gateway that others can reach.
type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// refusal is what a failed call says: match on the reason, never on the text.
type refusal struct {
	code     codes.Code
	reason   string
	metadata map[string]string
	// retryAfter is how long to wait before a repeat; nil where a repeat gets the same answer.
	retryAfter *time.Duration
}

// refusalOf reads the details of an error: google.rpc.ErrorInfo and RetryInfo.
func refusalOf(err error) refusal {
	answer := status.Convert(err)
	said := refusal{code: answer.Code()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain {
				said.reason, said.metadata = detail.GetReason(), detail.GetMetadata()
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay().AsDuration()
			said.retryAfter = &delay
		}
	}
	return said
}

// method is one of a generated client.
type method[Request, Response any] func(context.Context, *Request, ...grpc.CallOption) (*Response, error)

// call calls a method. It repeats the same request where that may help, for as long as patience lasts. That is safe for
// every method: those that write carry a request_id, and a repeat of a request_id has no second effect.
func call[Request, Response any](
	ctx context.Context, method method[Request, Response], request *Request, options ...grpc.CallOption,
) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries := 1; ; tries++ {
		one, done := context.WithTimeout(ctx, callTimeout)
		response, err := method(one, request, options...)
		done()
		if err == nil {
			return response, nil
		}
		if err := waitToRepeat(ctx, err, tries); err != nil {
			return nil, err
		}
	}
}

// waitToRepeat waits until the next try is due. It returns the error if there must be none, or no time is left for one.
func waitToRepeat(ctx context.Context, err error, tries int) error {
	said := refusalOf(err)
	// Nobody had the call; or its answer is lost, and what was asked for may be done: the repeat tells.
	mayHelp := said.code == codes.Unavailable || said.code == codes.DeadlineExceeded
	if said.retryAfter == nil && !mayHelp {
		return err
	}
	most := min(leastBackoff<<min(tries-1, 10), mostBackoff)
	wait := most/2 + rand.N(most/2)
	if said.retryAfter != nil {
		wait += *said.retryAfter
	}
	if end, bounded := ctx.Deadline(); bounded && time.Until(end) < wait || pause(ctx, wait) != nil {
		return err
	}
	return nil
}

// streaming is a method of a generated client that answers with a stream.
type streaming[Request, Response any] func(
	context.Context, *Request, ...grpc.CallOption,
) (grpc.ServerStreamingClient[Response], error)

// watch reads a stream until what it sends is the right thing. It opens a stream that broke again: each begins with the
// present state, so nothing is missed.
func watch[Request, Response any](
	ctx context.Context, method streaming[Request, Response], request *Request, found func(*Response) bool,
	options ...grpc.CallOption,
) (*Response, error) {
	// Its end ends the stream too.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries := 1; ; tries++ {
		stream, err := method(ctx, request, options...)
		for err == nil {
			var update *Response
			if update, err = stream.Recv(); err == nil {
				if found(update) {
					return update, nil
				}
				tries = 1
			}
		}
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the stream ended before it sent what was waited for")
		}
		if err := waitToRepeat(ctx, err, tries); err != nil {
			return nil, err
		}
	}
}

// pause waits, or fails with the end of the context.
func pause(ctx context.Context, wait time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}
