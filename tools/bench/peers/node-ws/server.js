// Node's `ws` with its optional native module, bufferutil. Compression is off, as by default.
import { WebSocketServer } from 'ws'

const [mode, port] = process.argv.slice(2)
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(port), perMessageDeflate: false, backlog: 1024 })

server.on('connection', (socket) => {
  socket.on('error', () => {}) // the clients of the load leave with a reset
  if (mode === 'echo') {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  } else {
    // As in "Server broadcast" of its README.
    socket.on('message', (data, isBinary) => {
      for (const client of server.clients) client.send(data, { binary: isBinary })
    })
  }
})
