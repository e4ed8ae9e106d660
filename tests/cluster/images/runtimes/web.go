// HTTP by Go, built without C: `get URL...` prints a page in a line each, `serve PORT` sends back what it is given.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

func page(url string) string {
	answer, err := http.Get(url)
	var lookup *net.DNSError
	if errors.As(err, &lookup) && lookup.IsNotFound {
		return "unknown"
	}
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}

func serve(answer http.ResponseWriter, request *http.Request) {
	// All of it first: the server stops reading when it begins to write.
	body, err := io.ReadAll(request.Body)
	if err != nil {
		panic(err)
	}
	if request.Method == "GET" {
		body = []byte("Go\n")
	}
	answer.Write(body)
}

func main() {
	verb, words := os.Args[1], os.Args[2:]
	if verb == "serve" {
		panic(http.ListenAndServe(":"+words[0], http.HandlerFunc(serve)))
	}
	for _, url := range words {
		fmt.Println(page(url))
	}
}
