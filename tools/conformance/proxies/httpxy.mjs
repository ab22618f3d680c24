import http from 'node:http'
import { createProxyServer } from 'httpxy'

const proxy = createProxyServer({ target: 'http://127.0.0.1:8000', ws: true })
const server = http.createServer((request, response) => {
  request.headers['x-forwarded-for'] = request.socket.remoteAddress
  proxy.web(request, response).catch(() => response.destroy())
})
server.on('upgrade', (request, socket, head) => {
  request.headers['x-forwarded-for'] = request.socket.remoteAddress
  proxy.ws(request, socket, {}, head).catch(() => socket.destroy())
})
server.listen(8080, '0.0.0.0')
